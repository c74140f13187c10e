"""From a checked request to its results: open the checkpoint, then measure what the option of `eval` asks for."""

from __future__ import annotations

from pathlib import Path

from aptlab.errors import ConfigError
from aptlab.evals import harness_report, lengths_report, retrieval_report, sliding_report
from aptlab.evals.context import EvalContext, make_data, open_eval_context, replace_network_rope
from aptlab.evals.request import EvalRequest
from aptlab.evals.rules import Harness, LengthLoss, Retrieval, SlidingLoss
from aptlab.restore.load import LoadedModel
from aptlab.runs import RunLog

__all__ = ["evaluate_checkpoint", "make_data", "replace_network_rope"]


def evaluate_checkpoint(request: EvalRequest, loaded: LoadedModel | None = None) -> Path:
    """Everything after the check; returns the folder with eval.json. `loaded`: see `open_eval_context`."""
    with RunLog.start(None):
        bench = open_eval_context(request, loaded)
        dispatch_eval(bench)
    return bench.folder


def dispatch_eval(bench: EvalContext) -> None:
    """Measure, print and write; a rule of an installed extension is measured as the class it is derived from."""
    rule = bench.rule
    if isinstance(rule, LengthLoss):
        lengths_report.run_length_eval(bench, rule)
    elif isinstance(rule, SlidingLoss):
        sliding_report.run_sliding_eval(bench, rule)
    elif isinstance(rule, Retrieval):
        retrieval_report.run_retrieval_eval(bench, rule)
    elif isinstance(rule, Harness):
        harness_report.run_harness_eval(bench, rule)
    else:
        raise ConfigError(
            f"eval: {type(rule).__name__} is no measurement; choose an option of the group, as in eval=ruler"
        )
