"""A closed terminal is a signal like the others, and what was trained is kept wherever a signal comes."""

from __future__ import annotations

import json
import os
import pty
import signal
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from lightning.pytorch import Callback

from aptlab.checkpoint import find_checkpoint, read_manifest
from aptlab.cli import main
from aptlab.data.module import TextData
from aptlab.runs.signals import SIGNALS, SignalReceived, raise_signals
from aptlab.training import finish
from aptlab.training import run as running
from tests.commands.small_run import newest, words
from tests.faults.parts import Run, assert_same


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return Run(tmp_path_factory.mktemp("whole") / "run").train()


@pytest.mark.parametrize(
    ("place", "saved"), [("train.batch:1", 0), ("train.batch:6", 5), ("val.batch:1", 4), ("save.after_write:1", 3)]
)
def test_a_hangup_saves_its_step_and_ends_with_129(tmp_path, whole, place, saved):
    run = Run(tmp_path / "run")
    assert run.in_child(f"{place}:HUP") == 129
    assert (tmp_path / "error.txt").read_text() == (
        f"Stopped: stopped by SIGHUP at step {saved}; continue with: aptlab train ckpt={tmp_path / 'run'}"
    )
    assert_same(run.resume(), whole)


def test_nohup_is_left_in_force(tmp_path):
    ignore = partial(signal.signal, signal.SIGHUP, signal.SIG_IGN)
    run = Run(tmp_path / "run", steps=4)
    assert run.in_child("train.batch:3:HUP", do=ignore) == 0
    assert read_manifest(run.last()).step == 4


class Talk(Callback):
    """A word to the terminal at every step, as a progress bar writes."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        print(f"step {trainer.global_step}", flush=True)
        time.sleep(0.05)


def test_a_terminal_that_is_closed_does_not_end_the_run_by_the_next_word_to_it(tmp_path):
    run = Run(tmp_path / "run", steps=200, every=100, callbacks=[Talk()])
    pid, terminal = pty.fork()
    if pid == 0:
        code = 70
        sys.stdout, sys.stderr = (os.fdopen(handle, "w", closefd=False) for handle in (1, 2))  # not what pytest reads
        try:
            run.train()
        except BaseException as error:
            code = getattr(error, "exit_code", 71)
            (tmp_path / "error.txt").write_text(f"{type(error).__name__}: {error}")
        finally:
            os._exit(code)
    seen = b""
    while b"step 3\r" not in seen:
        seen += os.read(terminal, 1024)
    os.close(terminal)
    status = os.waitpid(pid, 0)[1]
    assert os.WEXITSTATUS(status) == 129, (tmp_path / "error.txt").read_text()
    assert 3 <= read_manifest(run.last()).step < 200


# Before the first step


@pytest.mark.parametrize(("name", "code"), [("HUP", 129), ("TERM", 143), ("INT", 130), ("USR1", 143)])
def test_a_signal_while_the_data_are_prepared_is_one_line_and_leaves_no_run(monkeypatch, capsys, name, code):
    def prepare(self):
        os.kill(os.getpid(), signal.Signals[f"SIG{name}"])
        time.sleep(5)  # given up

    monkeypatch.setattr(TextData, "prepare_data", prepare)
    before = {number: signal.getsignal(number) for number in SIGNALS}
    assert main(["train", *words("evals=none")]) == code
    assert capsys.readouterr().err.strip() == (
        f"stopped by SIG{name} before the first step, so there is nothing to save; give the command again"
    )
    assert not Path("outputs").exists()
    assert {number: signal.getsignal(number) for number in SIGNALS} == before


def test_a_second_signal_kills_and_children_die_by_theirs():
    def child(again: bool) -> int:
        pid = os.fork()
        if pid == 0:
            for number in SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            try:
                with raise_signals():
                    inner = os.fork()
                    if inner == 0:
                        os.kill(os.getpid(), signal.SIGTERM)
                        os._exit(1)
                    if os.WTERMSIG(os.waitpid(inner, 0)[1]) != signal.SIGTERM:
                        os._exit(2)
                    try:
                        os.kill(os.getpid(), signal.SIGHUP)
                    except SignalReceived as received:
                        if again:
                            os.kill(os.getpid(), signal.SIGTERM)
                        os._exit(received.exit_code)
            finally:
                os._exit(3)
        status = os.waitpid(pid, 0)[1]
        return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)

    assert child(again=False) == 129
    assert child(again=True) == -signal.SIGTERM


# After the last step


def send(name: str):
    def act(*args, **kwargs):
        os.kill(os.getpid(), signal.Signals[f"SIG{name}"])
        time.sleep(5)

    return act


def made_alike(one: dict, other: dict) -> bool:
    """Results of equal runs: all but the clock, the words that name the folder, and the checksum over both."""
    clocks = ("seconds", "tokens_per_second", "overrides", "check")
    measured = {
        key: {k: v for k, v in r["metrics"].items() if "second" not in k} for key, r in (("a", one), ("b", other))
    }
    plain = [{k: v for k, v in r.items() if k not in (*clocks, "metrics")} for r in (one, other)]
    return plain[0] == plain[1] and measured["a"] == measured["b"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "name", "code"),
    [("run_evals", "TERM", 143), ("draw_training_figure", "HUP", 129), ("validate_final_weights", "INT", 130)],
)
def test_a_signal_in_the_report_keeps_the_weights_and_the_next_start_finishes_it(
    monkeypatch, capsys, place, name, code
):
    module = running if place == "validate_final_weights" else finish
    with monkeypatch.context() as patch:
        patch.setattr(module, place, send(name))
        assert main(["train", *words("evals.lengths=null")]) == code
    folder = next(Path("outputs").rglob("config.yaml")).parent.absolute()
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"stopped by SIG{name}: the run is trained to step 2 and saved, its report is not finished; finish it with: "
        f"aptlab train ckpt={folder}"
    )
    assert json.loads((folder / "result.json").read_text())["status"] == "trained"
    saved = read_manifest(find_checkpoint(folder))
    assert main(["train", f"ckpt={folder}"]) == 0
    assert "trained to step 2 already; what is missing is its report" in capsys.readouterr().out
    assert read_manifest(find_checkpoint(folder)).sha256 == saved.sha256, "nothing was trained or saved again"
    result = json.loads((folder / "result.json").read_text())
    assert result["status"] == "finished"
    assert main(["train", *words("evals.lengths=null")]) == 0
    assert made_alike(result, newest().result.plain())


def test_a_signal_after_the_last_look_of_the_callback_is_not_lost(monkeypatch, capsys):
    from aptlab.callbacks.stop import GracefulStop

    look = GracefulStop.on_train_end

    def late(self, trainer, module):
        look(self, trainer, module)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(GracefulStop, "on_train_end", late)
    assert main(["train", *words("evals=none")]) == 143
    assert "stopped by SIGTERM: the run is trained to step 2 and saved, its report is" in capsys.readouterr().err


def test_without_the_callback_a_signal_still_ends_the_run_with_its_code(monkeypatch, capsys):
    monkeypatch.setattr(
        "aptlab.callbacks.monitor.Monitor.on_before_optimizer_step",
        lambda self, trainer, module, optimizer: trainer.global_step == 1 and send("HUP")(),
    )
    assert main(["train", *words("evals=none", "callbacks.stop=null")]) == 129
    assert "stopped by SIGHUP at step 1, and callbacks.stop is not there to save it" in capsys.readouterr().err
