"""A prepared search, run to its end: baselines, search, files."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from aptlab.config import Config
from aptlab.runs import RunLog
from aptlab.runs.lock import FolderLock
from aptlab.search.baselines import calibrate_objective, measure_rule_losses, score_losses
from aptlab.search.engine import SearchResult, search_factors
from aptlab.search.evaluation_cache import CurvePoint, Evaluate, EvaluationCache
from aptlab.search.figure import draw_search_figure
from aptlab.search.journal import JournaledRunner
from aptlab.search.meter import CandidateScorer
from aptlab.search.pool import ProcessPool, SerialRunner
from aptlab.search.prepare import PreparedSearch, prepare_search
from aptlab.search.progress import SearchProgress
from aptlab.search.results import describe_search, write_search_results
from aptlab.search.settings import SearchSettings
from aptlab.search.verdict import check_basis
from aptlab.shown import print_drawn, print_shown

log = logging.getLogger("aptlab")
MOST_WORKERS = 8


def search_checkpoint(
    config: Config, settings: SearchSettings, target: int, fill: Callable[[dict[str, Any]], dict[str, Any]]
) -> Path:
    """Search to the end; returns the folder with journal.jsonl, search.json and figure.png. See `prepare_search`."""
    with RunLog.start(None):
        search = prepare_search(config, settings, target, fill)
        lock = FolderLock.take(search.output.folder)
        try:
            print_shown("\n".join(describe_search(search)), flush=True)
            print_drawn("\n".join(run_search(search)))
            return search.output.folder
        finally:
            lock.release()


def run_search(search: PreparedSearch) -> list[str]:
    """Measure the rules without a search, search, measure what was found; returns the lines to print."""
    problem, begun = search.problem, time.perf_counter()
    worker = search.worker
    with restore_torch_threads(worker.device):
        scorer = worker.meter(search.loaded.net, worker.device)
        measure = partial(
            measure_rule_losses, search.output.journal, scorer, target=problem.target, samples=search.settings.samples
        )
        losses = {name: measure(name, rule) for name, rule in problem.baselines().items()}
        scorer.objective = objective = calibrate_objective(worker.objective, losses["yarn"])
        if warning := check_basis(losses, objective, worker.samples[problem.target]):
            log.warning(warning)
        draw = partial(
            draw_search_figure,
            baselines={name: score_losses(objective, pairs) for name, pairs in losses.items()},
            known=problem.known,
            title=f"{problem.kind}: {problem.original_len:,} to {problem.target:,} tokens",
            unit=objective.unit,
            path=search.output.folder / "figure.png",
        )
        found = search_with_progress(search, scorer, draw)
        losses["search"] = measure("search", problem.found(found.factors, found.first))
    draw([*found.curve, dataclasses.replace(found.curve[-1], tokens=found.tokens)])
    return write_search_results(search, found, losses, objective, time.perf_counter() - begun)


def search_with_progress(
    search: PreparedSearch, scorer: CandidateScorer, draw: Callable[[Sequence[CurvePoint]], Any]
) -> SearchResult:
    """The search itself, with its bar and its processes."""
    settings = search.settings
    with SearchProgress(draw=draw) as bar, open_evaluator(search, scorer, bar) as evaluate:
        return search_factors(
            search.problem.starts(settings.step),
            settings=settings,
            strategy=search.strategy,
            cache=EvaluationCache(evaluate, target=search.problem.target, samples=settings.samples),
            seed=search.config.cfg.seed,
            watch=bar.iteration,
        )


@contextlib.contextmanager
def open_evaluator(search: PreparedSearch, scorer: CandidateScorer, bar: SearchProgress) -> Iterator[Evaluate]:
    """What measures jobs: here, or in as many processes as asked for."""
    workers = count_workers(search.config.cfg.workers, search.worker.device)
    with contextlib.ExitStack() as stack:
        runner = SerialRunner(scorer)
        if workers > 1:
            worker = dataclasses.replace(search.worker, objective=scorer.objective)
            runner = stack.enter_context(ProcessPool(worker, workers))
        yield JournaledRunner(runner, search.output.journal, done=bar.job)


def count_workers(workers: int | None, device: str) -> int:
    """As asked for; else one per CUDA device, or per core up to MOST_WORKERS."""
    if workers is not None:
        return int(workers)
    if device == "cuda":
        return torch.cuda.device_count()
    return min(MOST_WORKERS, os.cpu_count() or 1)


@contextlib.contextmanager
def restore_torch_threads(device: str) -> Iterator[None]:
    """Give torch its threads back afterwards."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        if device == "cpu":
            torch.set_num_threads(before)
