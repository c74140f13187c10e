"""However soon the continuation of a finished run breaks off, the run stays finished, and how to go on is said."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from lightning.pytorch.trainer.connectors.checkpoint_connector import _CheckpointConnector

import aptlab
from aptlab.callbacks.checkpoints import Checkpoints
from aptlab.cli import main
from aptlab.errors import AptlabError
from aptlab.runs import Run
from aptlab.training.inherited import list_lasting_words
from tests.commands.forked import run_forked
from tests.commands.small_run import words

RUN = Path("run")
STEPS = ("trainer.max_steps=4", "callbacks.checkpoints.every=2", "callbacks.checkpoints.keep=9", "evals=none")
RECORDS = ("config.yaml", "overrides.yaml", "choices.yaml", "environment.json", "result.json", "figure.png")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of four steps, in a folder that holds its text too."""
    home = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        assert main(["train", *words(*STEPS, f"run_dir={RUN}", "data.cache=cache")]) == 0
    return home


@pytest.fixture(autouse=True)
def _home(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)


def records() -> dict[str, bytes]:
    return {name: (RUN / name).read_bytes() for name in RECORDS}


def signalled(patch: pytest.MonkeyPatch) -> None:
    """A signal when the checkpoint is restored and no batch is read."""
    old = _CheckpointConnector.restore_training_state

    def restore_then_stop(connector, *args, **kwargs):
        old(connector, *args, **kwargs)
        os.kill(os.getpid(), signal.SIGTERM)

    patch.setattr(_CheckpointConnector, "restore_training_state", restore_then_stop)


def broken_setup(patch: pytest.MonkeyPatch) -> None:
    from aptlab.data.module import TextData

    def setup(data, stage):
        raise RuntimeError("out of memory, say")

    patch.setattr(TextData, "setup", setup)


def broken_logger(patch: pytest.MonkeyPatch) -> None:
    from aptlab.loggers import metrics

    def resume(logger, step):
        raise AptlabError("no logger today")

    patch.setattr(metrics.CSVMetrics, "resume", resume)


def linked(patch: pytest.MonkeyPatch) -> None:
    (RUN / "metrics.csv").rename("elsewhere.csv")
    (RUN / "metrics.csv").symlink_to(Path("elsewhere.csv").absolute())


ENDS: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], tuple[str, ...], str]] = {
    "a refused value": (lambda patch: None, ("optim.lr=-1",), "optim.lr"),
    "another optimizer": (lambda patch: None, ("load=resume", "optim=adamw8bit"), "cannot be continued"),
    "a link": (linked, (), "metrics.csv"),
    "a logger that fails": (broken_logger, (), "no logger today"),
    "an error in setup": (broken_setup, (), "out of memory, say"),
    "a signal before the first step": (signalled, (), "stopped by SIGTERM before the first new step"),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_start_that_breaks_off_leaves_the_finished_run_as_it_was(end, monkeypatch):
    prepare, asked, message = ENDS[end]
    prepare(monkeypatch)
    before = records()
    with pytest.raises((AptlabError, RuntimeError), match=re.escape(message)):
        aptlab.train(f"ckpt={RUN}", "trainer.max_steps=8", "data.cache=cache", *asked)
    assert records() == before
    assert Run.read(RUN).result.steps == 4
    assert not (RUN / "results").exists()


KILLS = [pytest.param("train.batch:1", marks=pytest.mark.slow), "val.batch:1", "save.begin:1", "save.after_rename:1"]


@pytest.mark.parametrize("fault", KILLS)
def test_a_kill_before_the_first_new_checkpoint_leaves_the_end(fault):
    before = records()
    done = run_forked("train", f"ckpt={RUN}", "trainer.max_steps=8", "data.cache=cache", fault=fault)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert records() == before


@pytest.mark.slow
def test_a_kill_after_it_leaves_a_run_that_goes_on_and_whose_end_is_kept():
    before = (RUN / "result.json").read_bytes()
    asked = ("train", f"ckpt={RUN}", "trainer.max_steps=8", "data.cache=cache")
    assert run_forked(*asked, fault="save.after_manifest:1").returncode == -signal.SIGKILL
    assert (RUN / "result.json").read_bytes() == before
    assert main(["train", f"ckpt={RUN}", "data.cache=cache"]) == 0
    assert Run.read(RUN).result.steps == 8
    assert (RUN / "results/step-00000004.json").read_bytes() == before
    assert (Run.read(RUN).config["trainer"]["max_steps"], Run.read(RUN).list_earlier_results()[0].steps) == (8, 4)


def test_a_signal_before_the_first_new_step_names_the_checkpoint_and_the_whole_command(monkeypatch):
    with monkeypatch.context() as patch:
        signalled(patch)
        with pytest.raises(AptlabError) as caught:
            aptlab.train(f"ckpt={RUN}", "trainer.max_steps=8", "data.cache=cache")
    told, command = str(caught.value).split("; go on with: ")
    assert told == (
        "stopped by SIGTERM before the first new step, so there is nothing new to save; step 4 is saved in "
        f"{RUN}/checkpoints/step-00000004.ckpt"
    )
    assert "\n" not in command
    assert main(shlex.split(command)[1:]) == 0
    assert Run.read(RUN).result.steps == 8


def test_without_the_callback_the_last_checkpoint_is_named(monkeypatch):
    def stop(callback, trainer, *args, **kwargs):
        if trainer.global_step == 7:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Checkpoints, "on_train_batch_end", stop)
    with pytest.raises(AptlabError) as caught:
        aptlab.train(f"ckpt={RUN}", "trainer.max_steps=8", "data.cache=cache", "callbacks.stop=null")
    assert str(caught.value) == (
        "stopped by SIGTERM at step 7, and callbacks.stop is not there to save it; the last saved step is 6 "
        f"(step-00000006.ckpt); go on with: aptlab train ckpt={RUN.absolute()} data.cache=cache"
    )


def test_a_finished_run_says_the_words_that_no_checkpoint_keeps(capsys):
    assert main(["train", f"ckpt={RUN}", "data.cache=cache"]) == 0
    told = capsys.readouterr().out
    assert f"train it further with: aptlab train ckpt={RUN} data.cache=cache trainer.max_steps=8" in told


def test_a_used_folder_is_refused_with_them_too():
    with pytest.raises(AptlabError, match=r"go on with that run: aptlab train ckpt=run data\.cache=cache$"):
        aptlab.train(*words(*STEPS, f"run_dir={RUN}", "data.cache=cache"))


@pytest.mark.parametrize(
    ("typed", "lasts"),
    [
        ("data.cache=c", True),
        ("logger.base_url=http://127.0.0.1:9", True),
        ("logger.project=p", True),
        ("trainer._target_=aptlab.device.Cpu", True),
        ("+evals.sample.include=x", True),
        ("+logger.api_key=abcdefgh12345", "+logger.api_key=***"),
        ("run_dir=x", False),
        ("paths.root=x", False),
        ("logger=csv", False),
        ("device=cpu", False),
        ("optim.lr=0.1", False),
        ("data.files=x", False),
    ],
)
def test_what_a_checkpoint_keeps_of_a_word_is_not_repeated(typed, lasts):
    assert list_lasting_words([typed]) == ({True: (typed,), False: ()}.get(lasts, (lasts,)))
