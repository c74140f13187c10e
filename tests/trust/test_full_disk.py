"""A full disk loses nothing that was trained, and a run without its last weights is never a success."""

from __future__ import annotations

import errno
import logging
import os
import shutil
from pathlib import Path

import pytest
from lightning.pytorch import Callback

from aptlab.callbacks import checkpoints, saving
from aptlab.checkpoint import read_manifest, reserve
from aptlab.checkpoint.find import list_checkpoints
from aptlab.checkpoint.reserve import allocate_file, hold_reserve, measure_reserve, release_reserve
from aptlab.checkpoint.stream import HashingFile
from aptlab.cli import main
from aptlab.config import check, compose
from aptlab.errors import CheckpointError, ConfigError, TrainingError, UnsavedError
from aptlab.loggers import CSVMetrics
from aptlab.restore.upgrade import rename_parts, upgrade_overrides
from aptlab.runs import RunLog
from tests.commands.small_run import newest, words
from tests.faults.parts import Run, assert_same, differences, file_state


class Filled(Callback):
    """From a step on nothing is free: what is held already can still be written into, as on a real disk."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, first: int, last: int = 99) -> None:
        self.now, self.held = False, []
        self.first, self.last = first, last
        usage = shutil.disk_usage("/")
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=0 if self.now else 1 << 40))

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.now = self.first <= trainer.global_step <= self.last
        self.held.append(measure_reserve(Path(trainer.default_root_dir) / "checkpoints"))


def steps(folder: Path) -> list[int]:
    return [read_manifest(path).step for path in list_checkpoints(folder / "checkpoints")]


def run_on(tmp_path: Path, *callbacks: Callback, **options) -> Run:
    return Run(tmp_path / "run", callbacks=list(callbacks), checkpoints=options, val=100)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return Run(tmp_path_factory.mktemp("whole") / "run", val=100).train()


def test_stop_saves_the_step_in_the_space_that_is_held_and_the_resumed_end_is_equal(tmp_path, monkeypatch, whole):
    disk = Filled(monkeypatch, first=5)
    run = run_on(tmp_path, disk)
    with pytest.raises(UnsavedError, match=r"^stopped at step 6, which is saved in the space that was held for it, for "
                       r"not enough space for .*step-00000006.ckpt.*; once there is space, go on with: aptlab train "
                       r"ckpt=.*run$") as caught:  # fmt: skip
        run.train()
    assert caught.value.exit_code == 1
    assert steps(run.folder)[-1] == 6
    run.callbacks, disk.now = [], False
    assert_same(run.resume(), whole)


def test_continue_trains_to_the_end_and_saves_that(tmp_path, monkeypatch, caplog, whole):
    run = run_on(tmp_path, Filled(monkeypatch, first=5), on_error="continue")
    with caplog.at_level(logging.WARNING, "aptlab"):
        outcome = run.train()
    assert_same(outcome, whole)
    assert differences(file_state(run.last()), outcome.state()) == []
    assert "step 6 was not saved: not enough space" in caplog.text
    assert "the last saved step is 3 (step-00000003.ckpt); go on with: aptlab train ckpt=" in caplog.text
    assert "step 12 is saved in the space that was held for it" in caplog.text


@pytest.mark.parametrize("on_error", ["stop", "continue"])
def test_without_space_held_the_run_ends_with_1_and_names_the_last_saved_step(tmp_path, monkeypatch, on_error):
    run = run_on(tmp_path, Filled(monkeypatch, first=5), on_error=on_error, reserve=False)
    begun = {"stop": "stopped at step 6, which", "continue": "training ended, but its last step 12"}[on_error]
    with pytest.raises(UnsavedError, match=rf"^{begun} was not saved: not enough space for .*; the last saved step is "
                       r"3 \(step-00000003.ckpt\); go on with: aptlab train ckpt=.*run$") as caught:  # fmt: skip
        run.train()
    assert caught.value.exit_code == 1
    assert steps(run.folder) == [3]


def test_a_signal_on_a_full_disk_saves_its_step(tmp_path, monkeypatch, whole):
    disk = Filled(monkeypatch, first=5)
    run = run_on(tmp_path, disk, on_error="continue")
    assert run.in_child("train.batch:9:TERM") == 143
    assert steps(run.folder)[-1] == 8
    run.callbacks = []
    assert_same(run.resume(), whole)


def test_space_is_held_from_the_first_save_and_given_back_at_every_end(tmp_path, monkeypatch):
    disk = Filled(monkeypatch, first=99)
    run = run_on(tmp_path, disk)
    run.train()
    size = run.last().stat().st_size
    assert disk.held[:3] == [0, 0, 0]
    assert min(disk.held[3:]) >= size
    assert measure_reserve(run.folder / "checkpoints") == 0

    class Break(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if trainer.global_step == 5:
                assert measure_reserve(run.folder / "checkpoints") >= size
                raise TrainingError("ends for another reason")

    shutil.rmtree(run.folder)
    run.callbacks = [Break()]
    with pytest.raises(TrainingError):
        run.train()
    assert measure_reserve(run.folder / "checkpoints") == 0


def test_what_is_held_has_its_blocks_and_takes_nothing_that_a_save_would_find_free(tmp_path, monkeypatch):
    assert hold_reserve(tmp_path, 100_000) is None
    found = (tmp_path / reserve.NAME).stat()
    assert found.st_blocks * 512 >= found.st_size >= 100_000
    assert hold_reserve(tmp_path, 90_000) is None
    assert (tmp_path / reserve.NAME).stat().st_ino == found.st_ino, "one that is large enough is taken over"
    release_reserve(tmp_path)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=190_000))
    assert hold_reserve(tmp_path, 100_000) == "0.2 MB are free, 0.3 MB are wanted"
    assert os.listdir(tmp_path) == []


def test_a_system_that_cannot_hold_space_says_so(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "posix_fallocate")
    assert hold_reserve(tmp_path, 1000) == "this system cannot hold space on a disk"
    assert os.listdir(tmp_path) == []


def test_the_held_space_is_not_opened_through_a_link(tmp_path):
    (tmp_path / "mine").write_text("untouched")
    (tmp_path / reserve.NAME).symlink_to(tmp_path / "mine")
    with pytest.raises(OSError, match="symbolic link"):
        allocate_file(tmp_path / reserve.NAME, 1000)
    assert (tmp_path / "mine").read_text() == "untouched"


def test_older_checkpoints_make_room_but_never_the_newest_whole_one_nor_the_best(tmp_path, caplog):
    run = run_on(tmp_path, keep=9)
    run.train()
    folder = run.folder / "checkpoints"
    files = list_checkpoints(folder)
    assert steps(run.folder) == [3, 6, 9, 12]
    size = files[0].stat().st_size
    assert not saving.make_room(folder, 99 * size, [])
    assert list_checkpoints(folder) == files, "what would not free enough is not removed"
    with caplog.at_level(logging.WARNING, "aptlab"):
        assert saving.make_room(folder, size + 50_000, [files[0]])
    assert list_checkpoints(folder) == [files[0], files[3]]
    assert f"removed to make room for the next checkpoint: {files[1].name}, {files[2].name}" in caplog.text
    files[3].with_suffix(".json").write_text("{}")  # not whole: the one before is the newest that counts
    assert saving.make_room(folder, 1, [])
    assert list_checkpoints(folder) == [files[0]]
    assert not saving.make_room(folder, 1, [])


def test_a_save_that_finds_room_by_removing_older_ones_goes_on(tmp_path, monkeypatch, caplog):
    """A disk with room for two beside what a save wants to be free, where three are to be kept."""
    run = run_on(tmp_path, keep=3, reserve=False)
    usage = shutil.disk_usage("/")

    def measure(path):
        names = [file.name for file in (run.folder / "checkpoints").glob("*.ckpt")]
        return usage._replace(free=2_500_000 if len(names) < 3 else 2_500_000 - 300_000)

    monkeypatch.setattr(shutil, "disk_usage", measure)
    with caplog.at_level(logging.WARNING, "aptlab"):
        run.train()
    assert steps(run.folder)[-1] == 12
    assert "removed to make room for the next checkpoint: step-00000003.ckpt" in caplog.text


def test_a_refusal_that_passes_costs_a_moment(tmp_path, monkeypatch):
    put, refused = HashingFile._put, []

    def refuse_once(file, piece):
        if not refused:
            refused.append(True)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        put(file, piece)

    monkeypatch.setattr(checkpoints, "WAITS", (0.0,))
    monkeypatch.setattr(HashingFile, "_put", refuse_once)
    run = run_on(tmp_path)
    run.train()
    assert refused
    assert steps(run.folder) == [9, 12]


# The command


def test_the_command_ends_with_1_one_line_and_no_result(monkeypatch, capsys):
    def refuse(file, piece):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(HashingFile, "_put", refuse)
    assert main(["train", *words("evals=none", "callbacks.checkpoints.on_error=continue")]) == 1
    told = capsys.readouterr().err.splitlines()
    assert told[-1].startswith("training ended, but no checkpoint could be written to ")
    assert "No space left on device" in told[-1]
    assert not (newest_folder() / "result.json").exists()


def newest_folder() -> Path:
    return next(Path("outputs").rglob("config.yaml")).parent


def test_a_report_that_cannot_be_written_says_that_the_run_is_saved_and_is_finished_by_the_next_start(
    monkeypatch, capsys
):
    from aptlab.runs import folder

    write = folder.write_json_record

    def refuse(path, value):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(folder, "write_json_record", lambda p, v: (refuse if p.name == "result.json" else write)(p, v))
    assert main(["train", *words("evals=none")]) == 1
    run = newest_folder()
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"cannot write {run.absolute()}/result.json: No space left on device: the run is trained to step 2 and saved, "
        f"its report is not finished; finish it with: aptlab train ckpt={run.absolute()}"
    )
    monkeypatch.setattr(folder, "write_json_record", write)
    assert main(["train", f"ckpt={run}"]) == 0
    assert "trained to step 2 already; what is missing is its report" in capsys.readouterr().out
    assert newest().result.status == "finished"


# log.txt and metrics.csv


def test_a_log_that_cannot_be_written_is_one_line(tmp_path, capsys):
    with RunLog.start(tmp_path, console=False) as log:
        (handler,) = log._handlers
        handler.stream.close()
        handler.stream = open("/dev/full", "w")  # noqa: SIM115 (the handler closes it)
        for number in range(3):
            logging.getLogger("aptlab").warning("line %d", number)
    told = capsys.readouterr().err
    assert told == f"warning: cannot write {tmp_path}/log.txt: No space left on device; lines are missing\n"


def test_rows_that_are_lost_in_the_end_are_named(tmp_path, caplog):
    logger = CSVMetrics(tmp_path)
    logger.log_metrics({"loss": 1.0}, 1)
    logger._file.close()
    logger._file = open("/dev/full", "r+b")  # noqa: SIM115 (the logger closes it)
    with caplog.at_level(logging.WARNING, "aptlab"):
        for step in (2, 3):
            logger.log_metrics({"loss": 1.0}, step)
        logger.close()
    told = [record.getMessage() for record in caplog.records]
    assert told[-1] == f"{tmp_path}/metrics.csv: the last 3 rows, up to step 3, are lost"
    assert len(told) <= 3


# The word of before


def test_the_old_word_is_answered_and_read_in_what_is_saved():
    old = {"_target_": "aptlab.callbacks.checkpoints.Checkpoints", "on_full": "warn"}
    assert rename_parts({"x": old})["x"] == {"_target_": old["_target_"], "on_error": "continue"}
    today = {"callbacks": {"checkpoints": {"on_error": "continue"}}}
    assert upgrade_overrides(["callbacks.checkpoints.on_full=warn"], today) == [
        "callbacks.checkpoints.on_error=continue"
    ]
    with pytest.raises(ConfigError, match=r"callbacks.checkpoints.on_full: is callbacks.checkpoints.on_error now"):
        check(compose("train", ["+callbacks.checkpoints.on_full=warn"]))
    assert issubclass(UnsavedError, CheckpointError)
