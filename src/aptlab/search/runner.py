"""Load, search, write: everything after the check."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from aptlab.checkpoint import read_manifest
from aptlab.config import build, redact_overrides
from aptlab.device import resolve_precision
from aptlab.errors import AptlabError
from aptlab.evals.runner import make_data
from aptlab.objectives import compute_perplexity
from aptlab.report.table import format_number, render_table
from aptlab.restore.load import LoadedModel, load_network, locate_checkpoint
from aptlab.runs import RunLog
from aptlab.runs.atomic import write_json
from aptlab.runs.lock import FolderLock
from aptlab.search.engine import SearchResult, search_factors
from aptlab.search.evaluation_cache import CurvePoint, Evaluate, EvaluationCache
from aptlab.search.figure import draw_search_figure
from aptlab.search.journal import JournaledRunner, SearchJournal
from aptlab.search.meter import CandidateScorer
from aptlab.search.needles import SearchSample, count_needle_tokens, make_samples
from aptlab.search.objectives import MixedObjective, SearchObjective, get_objective
from aptlab.search.option import check_option_free, write_option
from aptlab.search.pool import ProcessPool, SerialRunner
from aptlab.search.problem import SearchProblem, make_search_problem
from aptlab.search.progress import SearchProgress, format_factors
from aptlab.search.request import SearchRequest, make_option_path
from aptlab.search.settings import SearchSettings
from aptlab.search.strategies import Strategy, get_strategy
from aptlab.search.worker import SearchWorker

MOST_WORKERS = 8
Losses = Sequence[tuple[float, float]]


@dataclass
class SearchRun:
    """A search in progress: what is asked for, what it works on, where it writes."""

    request: SearchRequest
    settings: SearchSettings
    loaded: LoadedModel
    problem: SearchProblem
    objective: SearchObjective
    strategy: Strategy
    samples: dict[int, list[SearchSample]]
    device: str
    precision: str
    folder: Path
    option: Path
    journal: SearchJournal


def start_search(request: SearchRequest) -> Path:
    """Search to the end; returns the folder with journal.jsonl, search.json and figure.png."""
    with RunLog.start(None):
        session = open_search_run(request)
        lock = FolderLock.take(session.folder)
        try:
            return execute_search(session)
        finally:
            lock.release()


def open_search_run(request: SearchRequest) -> SearchRun:
    """Everything that can be wrong is found here, before anything is measured."""
    cfg, settings = request.config.cfg, request.settings
    device = build(cfg.device).torch_device
    precision = resolve_precision(cfg.precision, device)
    loaded = load_network(locate_checkpoint(cfg.ckpt, root=cfg.paths.root))
    wanted = request.filled(loaded.config)
    problem = make_search_problem(
        wanted["rope"],
        loaded.net.rope,
        head_dim=loaded.net.shape.head_sizes()[2],
        target=request.target,
    )
    problem.starts(settings.step)
    objective = get_objective(settings.objective or problem.objective)
    data = make_data(loaded, wanted.get("data"))
    encoder = data.tokenizer if objective.needles else None
    least = count_needle_tokens(encoder) if encoder is not None else 1
    strategy = get_strategy(settings.strategy).fitted(problem.target, least)
    samples = collect_samples(problem, settings.samples, strategy, data.store.val, encoder, cfg.seed)
    identity = make_identity(request, loaded, problem, data.fingerprint, (precision, device))
    choice = str(request.config.choices["rope"])
    folder = make_search_folder(wanted["out"], loaded.path, f"{choice}-{problem.target}-{hash_identity(identity)}")
    option = make_option_path(wanted["name"] or f"{choice}_{problem.target}")
    check_option_free(option, folder)
    journal = SearchJournal(folder / "journal.jsonl", identity)
    return SearchRun(
        request,
        settings,
        loaded,
        problem,
        objective,
        strategy,
        samples,
        device,
        precision,
        folder,
        option,
        journal,
    )


def make_identity(
    request: SearchRequest, loaded: LoadedModel, problem: SearchProblem, fingerprint: str, where: tuple[str, str]
) -> dict[str, Any]:
    """Everything on which the result depends; processes and folders are none of it."""
    settings = dataclasses.asdict(request.settings) | {"objective": choose_objective(request.settings, problem)}
    return {
        "checkpoint": read_manifest(loaded.path).sha256,
        "data": fingerprint,
        "rope": {"kind": problem.kind, **strip_rule_factors(problem.rule)},
        "target": problem.target,
        "search": settings,
        "seed": request.config.cfg.seed,
        "precision": where[0],
        "device": where[1],
    }


def choose_objective(settings: SearchSettings, problem: SearchProblem) -> str:
    return settings.objective or problem.objective


def collect_samples(
    problem: SearchProblem, count: int, strategy: Strategy, side: Any, encoder: Any, seed: int
) -> dict[int, list[SearchSample]]:
    """Samples of the target length, and shorter ones with positions up to it where the strategy reads such."""
    return {
        length: make_samples(
            side, encoder, length=length, count=count, span=problem.target, after=problem.original_len, seed=seed
        )
        for length in (problem.target // divisor for divisor in strategy.lengths)
    }


def execute_search(session: SearchRun) -> Path:
    """Baselines, search, table, files."""
    problem = session.problem
    print("\n".join(describe_search(session)), flush=True)
    begun = time.perf_counter()
    with restore_torch_threads(session.device):
        meter = make_worker(session).meter(session.loaded.net, session.device)
        losses = {name: measure_rule_losses(session, meter, name, rule) for name, rule in problem.baselines().items()}
        meter.objective = session.objective = calibrate_objective(session.objective, losses["yarn"])
        picture = partial(
            draw_search_figure,
            baselines={name: score_losses(session.objective, own) for name, own in losses.items()},
            known=problem.known,
            title=f"{problem.kind}: {problem.original_len:,} to {problem.target:,} tokens",
            unit=session.objective.unit,
            path=session.folder / "figure.png",
        )
        found = search_with_progress(session, meter, picture)
        losses["search"] = measure_rule_losses(session, meter, "search", problem.found(found.factors, found.first))
    picture([*found.curve, dataclasses.replace(found.curve[-1], tokens=found.tokens)])
    write_search_results(session, found, losses, time.perf_counter() - begun)
    return session.folder


def search_with_progress(
    session: SearchRun, meter: CandidateScorer, picture: Callable[[Sequence[CurvePoint]], Any]
) -> SearchResult:
    """The search itself, with its bar and its processes."""
    settings = session.settings
    with SearchProgress(draw=picture) as bar, open_evaluator(session, meter, bar) as evaluate:
        return search_factors(
            session.problem.starts(settings.step),
            evolution=settings.evolution(),
            strategy=session.strategy,
            book=EvaluationCache(evaluate, target=session.problem.target, samples=settings.samples),
            seed=session.request.config.cfg.seed,
            watch=bar.iteration,
        )


def describe_search(session: SearchRun) -> list[str]:
    problem, loaded = session.problem, session.loaded
    before = len(session.journal.known)
    lines = [
        f"model    {loaded.path}, step {loaded.step:,}",
        f"search   {problem.kind}, {problem.original_len:,} -> {problem.target:,} tokens ({problem.scale:g}x), "
        f"{choose_objective(session.settings, problem)}, {session.settings.strategy}",
        f"folder   {session.folder}",
    ]
    return lines + ([f"going on with {before:,} measurements that were made before"] if before else [])


def make_worker(session: SearchRun) -> SearchWorker:
    return SearchWorker(
        ckpt=str(session.loaded.path),
        samples=session.samples,
        objective=session.objective,
        rule_of=session.problem.rule_of,
        device=session.device,
        precision=session.precision,
    )


@contextlib.contextmanager
def open_evaluator(session: SearchRun, meter: CandidateScorer, bar: SearchProgress) -> Iterator[Evaluate]:
    """What measures jobs: here, or in as many processes as asked for."""
    workers = count_workers(session)
    with contextlib.ExitStack() as stack:
        runner = (
            SerialRunner(meter) if workers == 1 else stack.enter_context(ProcessPool(make_worker(session), workers))
        )
        yield JournaledRunner(runner, session.journal, done=bar.job)


def count_workers(session: SearchRun) -> int:
    """As asked for; else one per CUDA device, or per core up to MOST_WORKERS."""
    asked = session.request.config.cfg.workers
    if asked is not None:
        return int(asked)
    if session.device == "cuda":
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


def measure_rule_losses(session: SearchRun, meter: CandidateScorer, name: str, rule: Any) -> Losses:
    """The losses of a rule on every sample, from the journal where it has them."""
    if name not in session.journal.baselines:
        target = session.problem.target
        session.journal.add_baseline(name, meter.losses(rule, target, range(session.settings.samples)))
    return session.journal.baselines[name]


def calibrate_objective(objective: SearchObjective, losses: Losses) -> SearchObjective:
    """A mixed objective counts in YaRN's losses."""
    if not isinstance(objective, MixedObjective):
        return objective
    return MixedObjective(answer=average_losses(losses)[0], text=average_losses(losses)[1])


def score_losses(objective: SearchObjective, losses: Losses) -> float:
    return math.fsum(objective.value(*pair) for pair in losses) / len(losses)


def average_losses(losses: Losses) -> tuple[float, float]:
    return tuple(math.fsum(column) / len(losses) for column in zip(*losses))  # type: ignore[return-value]


def write_search_results(session: SearchRun, found: SearchResult, losses: Mapping[str, Losses], seconds: float) -> None:
    """Table, option and search.json, and the command that uses the option."""
    problem, rule = session.problem, session.problem.found(found.factors, found.first)
    target = str(session.request.config.cfg.rope._target_)
    rows = [format_score_row(session.objective, name, own) for name, own in losses.items()]
    title = f"{problem.kind} at {problem.target:,} tokens ({session.objective.unit})"
    print(render_table(["rule", "score", "needle ppl", "text ppl"], rows, title=title, bold=[len(rows) - 1]))
    about = (
        f"{problem.kind} for {problem.target:,} tokens, searched: score {found.score:.4f}, "
        f"YaRN {score_losses(session.objective, losses['yarn']):.4f}."
    )
    write_option(session.option, rule, target=target, about=about, folder=session.folder)
    write_json(
        session.folder / "search.json",
        {
            "checkpoint": str(session.loaded.path),
            "overrides": redact_overrides(session.request.config.overrides),
            "rope": {"kind": problem.kind, **strip_rule_factors(rule)},
            "target": problem.target,
            "objective": choose_objective(session.settings, problem),
            "found": dataclasses.asdict(found),
            "scores": {name: score_losses(session.objective, own) for name, own in losses.items()},
            "losses": losses,
            "seconds": seconds,
        },
    )
    print(f"factors  {format_factors(found.factors)} (searched from pair {found.first})")
    print(f"cost     {found.tokens:,} tokens, {found.candidates:,} candidates, {found.iterations} iterations")
    print(f"option   {session.option}\nresults  {session.folder / 'search.json'}")
    print(f"use it   aptlab eval ckpt={session.loaded.path} rope={session.option.stem}")


def format_score_row(objective: SearchObjective, name: str, losses: Losses) -> list[str]:
    answer, text = average_losses(losses)
    needle = format_number(compute_perplexity(answer), 3) if objective.needles else "-"
    return [name, format_number(score_losses(objective, losses), 4), needle, format_number(compute_perplexity(text), 3)]


def strip_rule_factors(rule: Any) -> dict[str, Any]:
    """The values of a rule, without the factors that a search has yet to find."""
    return {name: value for name, value in dataclasses.asdict(rule).items() if name not in ("long", "short")}


def hash_identity(identity: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]


def make_search_folder(out: str | None, ckpt: Path, name: str) -> Path:
    """`out`, or searches/<name> in the folder of the checkpoint's run."""
    run = ckpt.parent.parent if ckpt.parent.name == "checkpoints" else ckpt.parent
    folder = (Path(out).expanduser() if out is not None else run / "searches" / name).absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AptlabError(
            f"cannot make the folder {folder}: {error.strerror or error}; choose another with out=…"
        ) from error
    return folder
