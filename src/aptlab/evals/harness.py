"""`eval=harness`: tasks of lm-evaluation-harness (Gao et al. 2021, doi:10.5281/zenodo.5371628)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from aptlab.errors import ConfigError
from aptlab.evals.base import Eval, EvalContext, Measurement
from aptlab.limits import NonNegativeInt, PositiveInt, validate_limits
from aptlab.report.table import format_number, render_table

KEPT = ("results", "versions", "n-shot", "n-samples", "lm_eval_version")  # of what lm_eval returns

log = logging.getLogger("aptlab")


@dataclass(frozen=True, kw_only=True)
class Harness(Eval):
    """Tasks of lm-evaluation-harness (the extra `harness`).

    tasks    their names, as `lm_eval --tasks list` shows them
    include  a folder with task files of your own
    length   tokens of context; null = the trained ones. Longer texts lose their beginning
    batch    rows at a time; no answer depends on it
    limit    questions of each task; null takes all
    shots    solved examples in front of each question; null = what the task says
    max_gen_toks  tokens of a generated text, fewer than `length`; null = what the task says
    chat     write prompts by the chat template of an imported model

    rows: `metrics` (task, metric, filter, value, error), one per task and metric; error is the standard error.
    """

    name: ClassVar[str] = "harness"
    tasks: Sequence[str]
    include: str | None = None
    length: PositiveInt | None = None
    batch: PositiveInt = 8
    limit: PositiveInt | None = None
    shots: NonNegativeInt | None = None
    max_gen_toks: PositiveInt | None = None
    chat: bool = False

    def __post_init__(self) -> None:
        validate_limits(self)
        if not self.tasks:
            raise ConfigError("tasks=[] asks for nothing; name tasks of lm_eval, as in tasks=[hellaswag]")

    @property
    def reads_data(self) -> bool:
        """No: the tasks bring their own texts."""
        return False

    def measure(self, context: EvalContext) -> Measurement:
        """Every metric that lm_eval reports; see `scoring.harness`. ConfigError without lm_eval."""
        from aptlab.evals.scoring.harness import HarnessModel, run_harness

        with context.borrow_network() as net:
            answers = HarnessModel(
                net,
                context.tokenizer,
                length=self.length or context.trained_context,
                batch=self.batch,
                device=context.device,
                precision=context.precision,
                note=lambda line: log.warning("%s", line, extra={"component": self}),
            )
            found = run_harness(
                answers,
                self.tasks,
                include=self.include,
                shots=self.shots,
                limit=self.limit,
                max_gen_toks=self.max_gen_toks,
                chat=self.chat,
            )
        rows = flatten_harness_metrics(found["results"])
        body = [
            [row["task"], row["metric"], format_number(row["value"], 4), format_number(row["error"], 4)] for row in rows
        ]
        head = ["task", "metric", "value", "standard error"]
        return Measurement(
            rows={"metrics": rows},
            tables=[render_table(head, body, left=2, title="lm-evaluation-harness")],
            facts={name: found[name] for name in KEPT if name in found},
        )


def flatten_harness_metrics(results: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row per task and metric, from keys such as `acc,none` and `acc_stderr,none`."""
    rows = []
    for task, values in results.items():
        for key, value in values.items():
            metric, comma, form = key.partition(",")
            if not comma or metric.endswith("_stderr") or isinstance(value, str):
                continue
            error = values.get(f"{metric}_stderr,{form}")
            error = error if isinstance(error, int | float) else None
            rows.append({"task": task, "metric": metric, "filter": form, "value": value, "error": error})
    return rows
