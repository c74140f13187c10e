"""A whole training inside this process, which is left as it was. torch is loaded once the request holds."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from aptlab.config import Config, inspect_inputs
from aptlab.device.meeting import QUIET
from aptlab.device.threads import limit_idle_spin
from aptlab.restore.request import STAND_IN
from aptlab.runs import Run
from aptlab.runs.commands import repeat_words
from aptlab.runs.launched import is_launched_rank, watch_launcher
from aptlab.runs.preserve import preserve_environment, preserve_logging, preserve_signals
from aptlab.runs.ranks import get_process_rank
from aptlab.runs.signals import SignalReceived, Stopped, raise_signals
from aptlab.shown import print_shown
from aptlab.training.plan import TrainPlan, has_key_prefix, plan_training
from aptlab.training.ranks import report_early_failure
from aptlab.training.text_size import inspect_text_size


def train_inside_process(overrides: list[str]) -> Run:
    """Check, train, measure; returns the run, read back. Ranks other than zero may see it before it has a result.

    Raises ConfigError with every problem of the request, or DataError with what it needs and is not there, before
    torch is imported and anything is written.
    """
    with watch_launcher(), report_early_failure():
        return _train_planned(overrides)


def _train_planned(overrides: list[str]) -> Run:
    plan = plan_training(overrides)
    if plan.finished:
        if get_process_rank() == 0:
            print_shown(plan.finished, flush=True)
        return Run.read(plan.config.cfg.run_dir)
    inspect_inputs(leave_known_tokenizer(plan), train=True)
    inspect_text_size(plan.config)
    with preserve_environment(), repeat_words(plan.list_typed_words()), tell_early_signal():
        limit_idle_spin()  # before torch is loaded, which reads it once
        if is_launched_rank():
            os.environ.setdefault(QUIET, "ERROR")  # likewise
        # Imported before the loggers are copied: Lightning sets up its own.
        from aptlab.training.run import run_training

        with preserve_signals(), preserve_logging():
            return Run.read(run_training(plan))


@contextlib.contextmanager
def tell_early_signal() -> Iterator[None]:
    """Give up the preparation of a run at the first signal; Stopped says that nothing is lost."""
    try:
        with raise_signals():
            yield
    except SignalReceived as received:
        told = f"stopped by {received.name} before the first step, so there is nothing to save; give the command again"
        raise Stopped(told if get_process_rank() == 0 else "", received.exit_code) from None


def leave_known_tokenizer(plan: TrainPlan) -> Config:
    """The configuration as far as its files are needed: a checkpoint brings the tokenizer that its run had."""
    known = plan.ckpt is not None and not any(has_key_prefix(key, ("tokenizer",)) for key in plan.changed)
    return plan.config.replaced({"tokenizer": STAND_IN["tokenizer"]}) if known else plan.config
