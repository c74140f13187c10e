"""`eval=tasks`: what a run over several tasks has measured of each of them, as a table, numbers and figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from aptlab.continual.metrics import compute_scores
from aptlab.errors import DataError, EvalError
from aptlab.evals.base import Eval, EvalContext, Measurement
from aptlab.report.table import format_number, render_table
from aptlab.report.task_figures import draw_task_curves, draw_task_matrix
from aptlab.runs.record import find_shape_problem, read_record

RECORD = "tasks.json"
MISSING = (
    "the run has no tasks.json: it was trained on one task, or elsewhere; train with scenario=domains, or take another "
    "eval"
)
SHAPE = {"score": str, "tasks": list, "ends": list, "baseline": list, "matrix": list, "points": list}
MEANINGS = {
    "acc": "mean score on all tasks at the end",
    "bwt": "backward transfer: change on earlier tasks since each was learned",
    "fwt": "forward transfer: gain on a task before it is learned, over the untrained model",
    "forgetting_last": "loss since each was learned (Avalanche); = -bwt",
    "forgetting_max": "loss since each was done best, the end included (Mammoth)",
    "forgetting_chaudhry": "loss since each was done best, the end left out (Chaudhry et al. 2018)",
    "average_anytime": "mean over the ends of tasks of the mean score on those learned",
}


@dataclass(frozen=True, kw_only=True)
class TaskMatrix(Eval):
    """The score matrix that the run itself measured, read from tasks.json of its folder; nothing is measured anew.

    A score is larger where the model is better: an accuracy, or minus the nats per token. rows: `matrix` (one row for
    each task that was learned, and the scores before training), `metrics`, and `points` over steps. EvalError for a
    run that had no tasks.
    """

    name: ClassVar[str] = "tasks"
    needs_tokens: ClassVar[bool] = False

    @property
    def reads_data(self) -> bool:
        return False

    def measure(self, context: EvalContext) -> Measurement:
        record = read_task_record(context.run)
        names, matrix = record["tasks"], record["matrix"]
        metrics = compute_scores(matrix, record["baseline"] or None).plain() if len(matrix) == len(names) else {}
        rows = [{"after": "nothing", "step": 0, **dict(zip(names, record["baseline"]))}] if record["baseline"] else []
        for name, end, scores in zip(names, record["ends"], matrix):
            rows.append({"after": name, "step": end, **dict(zip(names, scores))})
        points = [{"step": point["step"], **dict(zip(names, point["scores"]))} for point in record["points"]]
        return Measurement(
            rows={"matrix": rows, "metrics": [metrics] if metrics else [], "points": points},
            tables=[format_matrix(record, rows), *([format_metrics(metrics)] if metrics else [])],
            figures={
                "matrix.png": partial(draw_task_matrix, record, title=context.title),
                "curves.png": partial(draw_task_curves, record, title=context.title),
            },
            facts={"score": record["score"], "joint": record.get("joint", False)},
        )


def read_task_record(run: Path | None) -> dict[str, Any]:
    """What a run wrote about its tasks. Raises EvalError where it did not, DataError where that is damaged."""
    if run is None:
        raise EvalError(MISSING)
    try:
        record, _ = read_record(run / RECORD, dict, way_out="train again, or evals.tasks=null")
    except FileNotFoundError:
        raise EvalError(MISSING) from None
    if problem := find_shape_problem(record, SHAPE) or find_size_problem(record):
        raise DataError(f"{run / RECORD} is damaged: {problem}; train again, or evals.tasks=null")
    return record


def find_size_problem(record: Mapping[str, Any]) -> str | None:
    """What is wrong with the sizes of a record, or None."""
    tasks = len(record["tasks"])
    lines = [*record["matrix"], *([record["baseline"]] if record["baseline"] else [])]
    if not tasks or any(not isinstance(line, list) or len(line) != tasks for line in lines):
        return f"a row of scores that is not one for each of {tasks} tasks"
    numbers = [value for line in lines for value in line]
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in numbers):
        return "a score that is no number"
    return None


def format_matrix(record: Mapping[str, Any], rows: list[dict[str, Any]]) -> str:
    """The scores on every task (columns) after each was learned (rows)."""
    names = record["tasks"]
    body = [[f"{row['after']}", f"{row['step']:,}", *(format_number(row[name], 4) for name in names)] for row in rows]
    learned = ", all tasks mixed at every step" if record.get("joint") else ""
    title = f"{record['score']} on each task after training on … (larger is better{learned})"
    return "\n" + render_table(["after", "step", *names], body, title=title)


def format_metrics(metrics: Mapping[str, float | None]) -> str:
    """The numbers of the matrix, each with what it says."""
    body = [[name, MEANINGS[name], format_number(value, 4)] for name, value in metrics.items()]
    return "\n" + render_table(["number", "what it is", "value"], body, left=2)
