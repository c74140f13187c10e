"""A link inside a run folder changes and shows nothing outside of it: every file is refused by its name."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from matplotlib.figure import Figure

import aptlab
from aptlab.checkpoint import find_checkpoint, load_checkpoint, save_checkpoint
from aptlab.checkpoint.manifest import find_checkpoint_problem, make_manifest_path
from aptlab.checkpoint.reserve import hold_reserve, measure_reserve
from aptlab.commands import ls as ls_command
from aptlab.config.search_path import find_conf_dir, read_option_index
from aptlab.errors import AptlabError, CheckpointError, ConfigError
from aptlab.evals.context import make_eval_folder
from aptlab.loggers.metrics import CSVMetrics
from aptlab.report.style import save_figure
from aptlab.restore.hf_import import write_checkpoint
from aptlab.runs import FolderLock, MetricsTable, Result, Run, RunFolder, RunLog
from aptlab.runs.files import UnsafeFileError, open_file
from aptlab.runs.journal import Journal
from aptlab.sweep.child import ChildProcess, write_stop_signal
from aptlab.sweep.folder import SweepFolder, read_log_tail
from aptlab.sweep.job import JobCommand
from tests.commands.small_run import train, words

SECRET = "step,epoch\n1,0\n2,0\n{}\nno newline at the end"  # of a file elsewhere: read as table, journal and result


@pytest.fixture
def outside(tmp_path) -> Path:
    """A file of the user's that no run folder may touch or show; what it holds is checked at the end."""
    path = tmp_path / "elsewhere" / "precious.txt"
    path.parent.mkdir()
    path.write_text(SECRET)
    yield path
    assert path.read_text() == SECRET
    assert [file.name for file in path.parent.iterdir()] == ["precious.txt"]


@pytest.fixture
def run(tmp_path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text("{}")
    (folder / "result.json").write_text('{"job": "train", "seed": 0}')
    return folder


def replace_by_link(path: Path, target: Path) -> Path:
    if path.name.endswith(".sum"):
        path.with_suffix("").write_text("step,epoch\n")
    path.unlink(missing_ok=True)
    path.symlink_to(target)
    return path


def log_a_row(folder: Path) -> None:
    CSVMetrics(folder).log_metrics({"train/loss": 1.0}, step=3)


USES = {
    "metrics.csv, logged": ("metrics.csv", log_a_row),
    "metrics.csv, resumed": ("metrics.csv", lambda folder: CSVMetrics(folder).resume(1)),
    "metrics.csv, read": ("metrics.csv", lambda folder: Run.read(folder).metrics()),
    "metrics.csv.sum": ("metrics.csv.sum", lambda folder: MetricsTable().write(folder / "metrics.csv")),
    "metrics.csv, as a table": ("metrics.csv", lambda folder: MetricsTable.read(folder / "metrics.csv")),
    "log.txt": ("log.txt", lambda folder: RunLog.start(folder, console=False)),
    "result.json": ("result.json", Result.read),
    "result.json, listed": ("result.json", Run.read),
    "result.json, trained further": ("result.json", lambda folder: RunFolder(folder).reopen()),
    "config.yaml": ("config.yaml", Run.read),
    "overrides.yaml": ("overrides.yaml", Run.read),
    "choices.yaml": ("choices.yaml", Run.read),
    "environment.json": ("environment.json", Run.read),
    ".lock": (".lock", FolderLock.take),
    "journal.jsonl": ("journal.jsonl", lambda folder: Journal(folder / "journal.jsonl")),
    "console.txt": (
        "console.txt",
        lambda folder: ChildProcess(
            JobCommand(0, "a", ("true",), str(folder / "console.txt"), str(folder / ".stop"), str(folder)), grace=1.0
        ),
    ),
    "console.txt, its end": ("console.txt", lambda folder: read_log_tail(folder / "console.txt")),
    ".stop": (".stop", lambda folder: write_stop_signal(folder / ".stop", str(int(signal.SIGTERM)))),
}


@pytest.mark.parametrize(("name", "use"), USES.values(), ids=USES)
def test_a_file_of_a_run_folder_that_is_a_link_is_refused_by_name(run, outside, name, use):
    replace_by_link(run / name, outside)
    with pytest.raises(
        UnsafeFileError, match=rf"{name} is a link to .*precious\.txt; .*put the file itself in its place"
    ):
        use(run)


@pytest.mark.parametrize(("name", "use"), USES.values(), ids=USES)
def test_a_link_to_a_file_that_is_not_there_makes_none(run, outside, name, use):
    replace_by_link(run / name, outside.with_name("new.txt"))
    with pytest.raises(UnsafeFileError, match=f"{name} is a link to"):
        use(run)


WRITES = ("log.txt", "journal.jsonl", "console.txt", ".stop", ".lock")
WRITES += ("result.json, trained further",)


@pytest.mark.parametrize("use", WRITES)
def test_a_hard_link_is_not_written_in_place(run, outside, use):
    name, do = USES[use]
    if use == "result.json, trained further":
        name = "log.txt"  # looked at before the result is moved
    (run / name).unlink(missing_ok=True)
    (run / name).hardlink_to(outside)
    message = rf"{name} has another name somewhere \(it is a hard link\).*put a copy in its place"
    with pytest.raises(UnsafeFileError, match=message):
        do(run)


def test_a_table_that_is_a_hard_link_takes_no_row(run):
    log_a_row(run)
    (run.parent / "copy.csv").hardlink_to(run / "metrics.csv")
    before = (run / "metrics.csv").read_bytes()
    with pytest.raises(UnsafeFileError, match=r"metrics\.csv has another name somewhere"):
        log_a_row(run)
    assert (run.parent / "copy.csv").read_bytes() == before


def test_a_hard_link_is_read_and_a_file_that_is_replaced_leaves_the_other_name(run, outside):
    (run / "result.json").unlink()
    (run / "result.json").hardlink_to(outside)
    (run / "figure.png").hardlink_to(outside)
    with RunFolder.create(run_dir=run) as folder:
        folder.write_result(Result(job="train", seed=1))
    save_figure(Figure(), run / "figure.png")
    assert Result.read(run).seed == 1


def test_space_that_is_a_hard_link_is_not_written_into(run, outside):
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / ".reserve").hardlink_to(outside)
    assert measure_reserve(run / "checkpoints") == 0
    save_checkpoint({"a": 1}, run / "checkpoints" / "step-00000001.ckpt", spend=True)
    assert hold_reserve(run / "checkpoints", 1000) is None
    assert (run / "checkpoints" / ".reserve").stat().st_nlink == 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes in folders")
@pytest.mark.parametrize(("name", "use"), USES.values(), ids=USES)
def test_a_pipe_in_a_run_folder_is_refused_and_not_waited_for(run, name, use):
    replace_by_link(run / name, run).unlink()
    os.mkfifo(run / name)
    with pytest.raises(UnsafeFileError, match=f"{name} is no file"):
        use(run)


@pytest.mark.parametrize("inner", ["checkpoints", "results", "evals", "wandb"])
def test_a_folder_of_a_run_folder_that_leads_out_is_refused(run, outside, inner):
    (run / inner).symlink_to(outside.parent)
    with pytest.raises(UnsafeFileError, match=rf"{inner} is a link to .*elsewhere, outside of its run folder"):
        RunFolder.create(run_dir=run)


def test_checkpoints_are_not_looked_for_through_a_link(run, outside):
    (run / "checkpoints").symlink_to(outside.parent)
    with pytest.raises(UnsafeFileError, match="checkpoints is a link to"):
        find_checkpoint(run)


def test_results_of_earlier_ends_are_not_read_through_a_link(run, outside):
    (run / "results").symlink_to(outside.parent)
    with pytest.raises(UnsafeFileError, match="results is a link to"):
        Run.read(run).list_earlier_results()


def test_an_eval_and_an_import_write_through_no_link(run, outside):
    (run / "evals").symlink_to(outside.parent)
    with pytest.raises(UnsafeFileError, match="evals is a link to"):
        make_eval_folder(None, run / "checkpoints" / "step-00000001.ckpt")
    (run / "checkpoints").symlink_to(outside.parent)
    with pytest.raises(UnsafeFileError, match="checkpoints is a link to"):
        write_checkpoint({}, run / "checkpoints" / "step-00000000.ckpt")


def test_the_jobs_of_a_sweep_are_not_written_through_a_link(tmp_path, outside):
    sweep = tmp_path / "sweeps" / "one"
    sweep.mkdir(parents=True)
    (sweep / "jobs").symlink_to(outside.parent)
    with pytest.raises(UnsafeFileError, match="jobs is a link to"):
        SweepFolder.open(tmp_path / "sweeps", "one")


@pytest.mark.parametrize("name", ["../../elsewhere", "/tmp", "..", "a/b", "", None, 3])
def test_a_sweep_names_no_folder_outside_of_it(tmp_path, outside, name):
    sweep = tmp_path / "sweeps" / "one"
    sweep.mkdir(parents=True)
    job = {"index": 0, "key": "k", "folder": name}
    (sweep / "sweep.yaml").write_text(json.dumps({"kind": "grid", "jobs": [job]}))
    with pytest.raises(
        AptlabError, match=r"sweep\.yaml cannot be read: jobs\[0\]\.folder (is .* no name of a folder|should be str)"
    ):
        SweepFolder.open(tmp_path / "sweeps", "one")


def test_a_save_does_not_write_into_space_that_is_a_link(run, outside):
    """What is held for the last checkpoint becomes that checkpoint, block by block."""
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / ".reserve").symlink_to(outside)
    assert measure_reserve(run / "checkpoints") == 0
    save_checkpoint({"a": 1}, run / "checkpoints" / "step-00000001.ckpt", spend=True)
    assert hold_reserve(run / "checkpoints", 1000)
    assert not (run / "checkpoints" / ".reserve").is_symlink()


def test_a_figure_is_not_drawn_through_a_link_of_the_name_it_once_had(run, outside):
    (run / ".figure.png.tmp").symlink_to(outside)
    save_figure(Figure(), run / "figure.png")
    assert (run / "figure.png").stat().st_size > 100


@pytest.fixture
def trained(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return train().path


def test_training_goes_on_through_no_link(trained, outside):
    """The whole command: a resume once cut the file elsewhere off and wrote rows into it."""
    replace_by_link(trained / "metrics.csv", outside)
    with pytest.raises(UnsafeFileError, match=r"metrics\.csv is a link to .*precious"):
        aptlab.train(words(f"ckpt={trained}", "trainer.max_steps=4"))
    assert (trained / "result.json").is_file(), "the end that was there is left where it is"


def test_a_checkpoint_that_is_a_link_is_passed_over_by_name(trained, outside):
    ckpt = find_checkpoint(trained)
    replace_by_link(ckpt, outside)
    assert "is a link to" in str(find_checkpoint_problem(ckpt))
    with pytest.raises(CheckpointError, match=rf"{ckpt.name} is a link to"):
        load_checkpoint(ckpt)


def test_a_manifest_that_is_a_link_is_told_by_name(trained, outside):
    ckpt = find_checkpoint(trained)
    replace_by_link(make_manifest_path(ckpt), outside)
    with pytest.raises(CheckpointError, match=rf"{make_manifest_path(ckpt).name} is a link to"):
        load_checkpoint(ckpt)


def test_the_run_folder_itself_may_be_a_link_and_so_may_a_folder_that_stays_inside(run, tmp_path):
    linked = tmp_path / "linked"
    linked.symlink_to(run)
    (run / "kept").mkdir()
    (run / "checkpoints").symlink_to("kept")
    with RunFolder.create(run_dir=linked) as folder:
        log_a_row(folder.path)
    assert Run.read(linked).result.job == "train"


def test_a_checkpoint_may_be_named_by_a_link_of_ones_own(trained, tmp_path):
    link = tmp_path / "mine.ckpt"
    link.symlink_to(find_checkpoint(trained))
    assert find_checkpoint(link) == find_checkpoint(trained).resolve()


def test_a_file_is_opened_as_open_does(tmp_path):
    with open_file(tmp_path / "new.txt", "w") as file:
        file.write("text")
    with open_file(tmp_path / "new.txt", "ab") as file:
        file.write(b"!")
    assert open_file(tmp_path / "new.txt").read() == "text!"
    with pytest.raises(FileNotFoundError):
        open_file(tmp_path / "none.txt")
    with pytest.raises(FileExistsError):
        open_file(tmp_path / "new.txt", "x")


@pytest.fixture
def conf(tmp_path, monkeypatch) -> Path:
    home = tmp_path / "project"
    (home / "conf" / "rope").mkdir(parents=True)
    monkeypatch.chdir(home)
    return home / "conf"


def test_ls_follows_no_link_out_of_the_conf_folders(conf, outside):
    (conf / "rope" / "mine.yaml").symlink_to(outside)
    with pytest.raises(ConfigError, match=r"mine\.yaml is a link to .*precious\.txt, outside of the conf folders"):
        ls_command.run(["rope"])


def test_ls_walks_into_no_folder_outside_of_the_conf_folders(conf, outside):
    (conf / "rope" / "more").symlink_to(outside.parent)
    with pytest.raises(ConfigError, match=r"more is a link to .*elsewhere, outside of the conf folders"):
        ls_command.run([])


def test_ls_reads_no_pipe(conf):
    os.mkfifo(conf / "rope" / "mine.yaml")
    with pytest.raises(ConfigError, match=r"mine\.yaml is no file"):
        ls_command.run(["rope"])


def test_recipes_beside_a_conf_folder_are_linked_as_the_shipped_ones_are(conf, capsys):
    (conf.parent / "recipes").mkdir()
    (conf.parent / "recipes" / "own.yaml").write_text("# @package _global_\n# A recipe of one's own\n")
    (conf / "recipe").symlink_to("../recipes")
    assert ls_command.run(["recipe"]) == 0
    assert "own" in capsys.readouterr().out
    assert (find_conf_dir() / "recipe").is_symlink() == (find_conf_dir().parent / "recipes").is_dir()
    assert "own" in read_option_index().groups["recipe"]
