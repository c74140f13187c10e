"""The curriculum of a run: checked and measured before there is a folder, drawn when the run has ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from aptlab.callbacks.curriculum import CurriculumOrder
from aptlab.callbacks.lookup import find_callbacks
from aptlab.config import Config, build
from aptlab.curriculum import Curriculum
from aptlab.curriculum.scores import prepare_course
from aptlab.curriculum.sections import open_schedule
from aptlab.errors import AptlabError
from aptlab.report.curriculum import draw_curriculum_timeline
from aptlab.runs import find_runs
from aptlab.training.evaluate import write_title
from aptlab.training.required import require_callback
from aptlab.training.state import TrainRun

FIGURE = "curriculum.png"


def check_curriculum(config: Config, data: Any, *, ranks: int) -> None:
    """Measure the difficulty of every row, or find it measured, before the run of so many ranks has a folder.

    Raises ConfigError and DataError where the curriculum cannot order this data, a metric fails, or nothing follows it.
    """
    rule: Curriculum = build(config.cfg.curriculum)
    if not rule.orders:
        return
    why = "curriculum: an order of rows is asked for"
    require_callback(config, CurriculumOrder, "curriculum", why, "curriculum=none")
    try:
        open_schedule(rule, prepare_course(rule, data, seed=config.cfg.seed), data)
        accumulate = config.cfg.trainer.get("accumulate_grad_batches") or 1
        rule.check_step(data.count_global_batch() * ranks * accumulate)
    except AptlabError as error:
        raise type(error)(f"curriculum: {error}") from error


def draw_curriculum_figure(run: TrainRun) -> Path | None:
    """curriculum.png, where the run followed a curriculum."""
    found = [one for one in find_callbacks(run.trainer, CurriculumOrder) if one.active and one.timeline]
    if not found:
        return None
    metrics = find_runs([run.folder.path])[0].metrics()
    return draw_curriculum_timeline(
        metrics,
        found[0].timeline,
        names=list(found[0].rule.list_metrics()),
        steps=run.trainer.global_step,
        title=f"curriculum={run.config.choices.get('curriculum')}, {write_title(run, run.trainer.global_step)}",
        path=run.folder / FIGURE,
    )
