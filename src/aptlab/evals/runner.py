"""From a checked request to its results: open the checkpoint, measure, then print and write."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from aptlab.config import Config
from aptlab.evals.base import Eval, EvalContext, Measurement
from aptlab.evals.context import describe_checkpoint, make_data, open_checkpoint_eval
from aptlab.evals.report import print_tables, write_measurement
from aptlab.restore.load import LoadedModel
from aptlab.runs import RunLog
from aptlab.runs.journal import NAME
from aptlab.shown import print_shown

__all__ = ["evaluate_checkpoint", "make_data", "measure_eval"]


def evaluate_checkpoint(
    config: Config, fill: Callable[[Mapping[str, Any]], dict[str, Any]], loaded: LoadedModel | None = None
) -> Path:
    """Measure what a checked request asks for; returns the folder with eval.json.

    config  the request as composed
    fill    gives its plain values, from the configuration that the checkpoint holds
    loaded  a model in memory: it is measured where it is and as it is, whatever its file says by now
    """
    with RunLog.start(None):
        opened = open_checkpoint_eval(config, fill, loaded)
        try:
            measure_eval(opened.evaluation, opened.context, describe_checkpoint(opened))
        except KeyboardInterrupt:
            if loaded is None and (opened.folder / NAME).exists():  # weights in memory may be gone by then
                print_shown(f"\nto go on, give the same command with out={opened.folder}", file=sys.stderr)
            raise
    return opened.folder


def measure_eval(evaluation: Eval, context: EvalContext, facts: Mapping[str, Any] | None = None) -> Measurement:
    """Measure one eval, print its tables and write its files, where the context has a folder.

    `facts` are plain values with which eval.json begins. A training run calls this at its end, as `aptlab eval` does.
    """
    begun = time.perf_counter()
    measurement = evaluation.measure(context)
    seconds = time.perf_counter() - begun
    print_tables(measurement)
    if context.folder.path is not None:
        head = {**(facts or {}), "eval": evaluation.describe_options(), "seconds": seconds}
        write_measurement(measurement, context.folder.path, head)
    return measurement
