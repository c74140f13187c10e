"""Signals: who handles them when, and what a second one does. That the saved step is exact is shown in tests/faults."""

from __future__ import annotations

import os
import signal
import time

import pytest
from lightning.pytorch import Callback
from tests.helpers import FewRows, Rows, task, trainer

from aptlab.callbacks import RunContext
from aptlab.callbacks.checkpoints import Checkpoints
from aptlab.callbacks.stop import SIGNALS, GracefulStop, Stopped
from aptlab.checkpoint import AtomicIO, find_checkpoint, read_manifest
from aptlab.errors import AptlabError


class Send(Callback):
    """Send signals to this process in a named hook at a step."""

    def __init__(self, hook, *numbers, step=0):
        self.numbers, self.step = numbers, step
        setattr(self, hook, self._send)

    def _send(self, trainer, *args, **kwargs):
        if trainer.global_step == self.step:
            for number in self.numbers:
                os.kill(os.getpid(), number)
            self.numbers = ()


def fit(folder, *extra, saver=True, **settings):
    callbacks = list(extra)
    if saver:
        keeper = Checkpoints(every=100)
        keeper.attach(RunContext(folder=folder))
        callbacks.append(keeper)
    callbacks.append(GracefulStop())
    run = trainer(callbacks=callbacks, enable_checkpointing=True, plugins=[AtomicIO()], **settings)
    run.fit(task(), Rows(), FewRows())
    return run


@pytest.fixture(autouse=True)
def _handlers_are_given_back():
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    assert {number: signal.getsignal(number) for number in SIGNALS} == before


def test_handlers_are_only_ours_while_training(tmp_path):
    class Look(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            self.names = {signal.getsignal(number).__qualname__ for number in SIGNALS}

    look = Look()
    fit(tmp_path, look)
    assert look.names == {"GracefulStop._on_signal"}


@pytest.mark.parametrize(
    ("hook", "step", "saved"),
    [
        ("on_train_start", 0, 0),
        ("on_train_batch_end", 1, 1),
        ("on_before_optimizer_step", 1, 2),
        ("on_validation_start", 3, 3),
        ("on_validation_batch_end", 3, 3),
        ("on_validation_end", 3, 3),
        ("on_train_end", 6, 6),
    ],
)
def test_wherever_the_signal_comes_the_step_is_saved_and_named(tmp_path, hook, step, saved):
    with pytest.raises(
        Stopped, match=rf"stopped by SIGTERM at step {saved}; continue with: aptlab train ckpt="
    ) as caught:
        fit(tmp_path, Send(hook, signal.SIGTERM, step=step))
    assert caught.value.exit_code == 143
    assert read_manifest(find_checkpoint(tmp_path)).step == saved


def test_during_a_save_the_save_is_finished_first(tmp_path, monkeypatch):
    save, sent = AtomicIO.save_checkpoint, []

    def signalled(io, checkpoint, path, storage_options=None):
        if not sent:
            sent.append(os.kill(os.getpid(), signal.SIGINT))
        save(io, checkpoint, path, storage_options)

    monkeypatch.setattr(AtomicIO, "save_checkpoint", signalled)
    with pytest.raises(Stopped, match="SIGINT at step 3") as caught:
        fit(tmp_path)
    assert caught.value.exit_code == 130
    assert read_manifest(find_checkpoint(tmp_path)).step == 3


def test_lightning_s_own_notice_is_taken_over(tmp_path):
    """A SIGTERM between Lightning's registration and the first batch would otherwise end with code 0."""

    class Early(Callback):
        def on_train_start(self, trainer, pl_module):
            trainer._signal_connector.received_sigterm = True

    with pytest.raises(Stopped, match="SIGTERM at step 0"):
        fit_early(tmp_path, Early())


def fit_early(folder, early):
    keeper = Checkpoints(every=100)
    keeper.attach(RunContext(folder=folder))
    run = trainer(callbacks=[early, GracefulStop(), keeper], enable_checkpointing=True, plugins=[AtomicIO()])
    run.fit(task(), Rows(), FewRows())


def test_without_checkpoints_it_says_that_nothing_is_saved(tmp_path):
    with pytest.raises(Stopped, match="stopped by SIGUSR1 at step 2; no checkpoint was saved"):
        fit(tmp_path, Send("on_train_batch_end", signal.SIGUSR1, step=2), saver=False)


def test_a_full_disk_at_the_stop_names_the_step_that_is_saved(tmp_path, monkeypatch):
    def full(io, checkpoint, path, storage_options=None):
        from aptlab.errors import CheckpointError

        raise CheckpointError("disk full")

    class Fill(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if trainer.global_step == 5:
                monkeypatch.setattr(AtomicIO, "save_checkpoint", full)
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped, match=r"at step 5 \(saved up to step-00000003.ckpt\); continue with"):
        fit(tmp_path, Fill())


def test_a_second_signal_kills_at_once(tmp_path):
    pid = os.fork()
    if pid == 0:
        try:
            fit(tmp_path, Send("on_train_batch_end", signal.SIGTERM, signal.SIGTERM, step=2))
        finally:
            os._exit(0)
    begun = time.monotonic()
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGTERM
    assert time.monotonic() - begun < 10


def test_stopped_is_an_error_that_the_command_line_prints_without_a_traceback():
    assert issubclass(Stopped, AptlabError)
    assert str(Stopped(exit_code=0)) == ""
