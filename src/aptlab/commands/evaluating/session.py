"""From a checked request to its results: open the checkpoint, then measure what the option of `eval` asks for."""

from __future__ import annotations

from pathlib import Path

from aptlab.commands.evaluating import harnessing, lengths, retrieving, sliding
from aptlab.commands.evaluating.bench import Bench, make_data, net_with, prepare
from aptlab.commands.evaluating.request import Request
from aptlab.errors import ConfigError
from aptlab.evals.rules import Harness, LengthLoss, Retrieval, Sliding
from aptlab.runs import RunLog

__all__ = ["make_data", "measure", "net_with"]


def measure(request: Request) -> Path:
    """Everything after the check; returns the folder with eval.json."""
    with RunLog.start(None):
        bench = prepare(request)
        choose(bench)
    return bench.folder


def choose(bench: Bench) -> None:
    """Measure, print and write; a rule of an installed extension is measured as the class it is derived from."""
    rule = bench.rule
    if isinstance(rule, LengthLoss):
        lengths.measure(bench, rule)
    elif isinstance(rule, Sliding):
        sliding.measure(bench, rule)
    elif isinstance(rule, Retrieval):
        retrieving.measure(bench, rule)
    elif isinstance(rule, Harness):
        harnessing.measure(bench, rule)
    else:
        raise ConfigError(
            f"eval: {type(rule).__name__} is no measurement; choose an option of the group, as in eval=ruler"
        )
