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
from aptlab.commands.evaluating.session import make_data
from aptlab.commands.loading import Loaded, load, locate
from aptlab.commands.searching.figure import draw
from aptlab.commands.searching.option import check_free, write_option
from aptlab.commands.searching.problem import Problem, problem_of
from aptlab.commands.searching.progress import Progress, shown
from aptlab.commands.searching.request import Request, option_path
from aptlab.commands.searching.worker import Worker
from aptlab.config import build, redact_overrides
from aptlab.device import resolve_precision
from aptlab.errors import AptlabError
from aptlab.report.table import number, render
from aptlab.runs import RunLog
from aptlab.runs.atomic import write_json
from aptlab.runs.lock import FolderLock
from aptlab.search.book import Book, Evaluate, Point
from aptlab.search.engine import Found, search
from aptlab.search.journal import Journal, Recorded
from aptlab.search.meter import Meter
from aptlab.search.needles import Sample, make_samples, needle_tokens
from aptlab.search.objectives import Mixed, Objective, objective_of
from aptlab.search.pool import Alone, Pool
from aptlab.search.settings import Settings
from aptlab.search.strategies import Strategy, strategy_of

MOST_WORKERS = 8
Losses = Sequence[tuple[float, float]]


@dataclass
class Session:
    """A search in progress: what is asked for, what it works on, where it writes."""

    request: Request
    settings: Settings
    loaded: Loaded
    problem: Problem
    objective: Objective
    strategy: Strategy
    samples: dict[int, list[Sample]]
    device: str
    precision: str
    folder: Path
    option: Path
    journal: Journal


def start(request: Request) -> Path:
    """Search to the end; returns the folder with journal.jsonl, search.json and figure.png."""
    with RunLog.start(None):
        session = open_session(request)
        lock = FolderLock.take(session.folder)
        try:
            return run(session)
        finally:
            lock.release()


def open_session(request: Request) -> Session:
    """Everything that can be wrong is found here, before anything is measured."""
    cfg, settings = request.config.cfg, request.settings
    device = build(cfg.device).torch_device
    precision = resolve_precision(cfg.precision, device)
    loaded = load(locate(cfg.ckpt, root=cfg.paths.root))
    wanted = request.filled(loaded.config)
    problem = problem_of(
        wanted["rope"],
        loaded.net.rope,
        head_dim=loaded.net.shape.head_sizes()[2],
        target=request.target,
    )
    problem.starts(settings.step)
    objective = objective_of(settings.objective or problem.objective)
    data = make_data(loaded, wanted.get("data"))
    encoder = data.tokenizer if objective.needles else None
    least = needle_tokens(encoder) if encoder is not None else 1
    strategy = strategy_of(settings.strategy).fitted(problem.target, least)
    samples = samples_of(problem, settings.samples, strategy, data.store.val, encoder, cfg.seed)
    identity = identity_of(request, loaded, problem, data.fingerprint, (precision, device))
    choice = str(request.config.choices["rope"])
    folder = make_folder(wanted["out"], loaded.path, f"{choice}-{problem.target}-{digest(identity)}")
    option = option_path(wanted["name"] or f"{choice}_{problem.target}")
    check_free(option, folder)
    journal = Journal(folder / "journal.jsonl", identity)
    return Session(
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


def identity_of(
    request: Request, loaded: Loaded, problem: Problem, fingerprint: str, where: tuple[str, str]
) -> dict[str, Any]:
    """Everything on which the result depends; processes and folders are none of it."""
    settings = dataclasses.asdict(request.settings) | {"objective": wanted_objective(request.settings, problem)}
    return {
        "checkpoint": read_manifest(loaded.path).sha256,
        "data": fingerprint,
        "rope": {"kind": problem.kind, **plain_rule(problem.rule)},
        "target": problem.target,
        "search": settings,
        "seed": request.config.cfg.seed,
        "precision": where[0],
        "device": where[1],
    }


def wanted_objective(settings: Settings, problem: Problem) -> str:
    return settings.objective or problem.objective


def samples_of(
    problem: Problem, count: int, strategy: Strategy, side: Any, encoder: Any, seed: int
) -> dict[int, list[Sample]]:
    """Samples of the target length, and shorter ones with positions up to it where the strategy reads such."""
    return {
        length: make_samples(
            side, encoder, length=length, count=count, span=problem.target, after=problem.original_len, seed=seed
        )
        for length in (problem.target // divisor for divisor in strategy.lengths)
    }


def run(session: Session) -> Path:
    """Baselines, search, table, files."""
    problem = session.problem
    print("\n".join(opening(session)), flush=True)
    begun = time.perf_counter()
    with one_thread(session.device):
        meter = worker_of(session).meter(session.loaded.net, session.device)
        losses = {name: measured(session, meter, name, rule) for name, rule in problem.baselines().items()}
        meter.objective = session.objective = with_reference(session.objective, losses["yarn"])
        picture = partial(
            draw,
            baselines={name: score(session.objective, own) for name, own in losses.items()},
            known=problem.known,
            title=f"{problem.kind}: {problem.original_len:,} to {problem.target:,} tokens",
            unit=session.objective.unit,
            path=session.folder / "figure.png",
        )
        found = look(session, meter, picture)
        losses["search"] = measured(session, meter, "search", problem.found(found.factors, found.first))
    picture([*found.curve, dataclasses.replace(found.curve[-1], tokens=found.tokens)])
    write(session, found, losses, time.perf_counter() - begun)
    return session.folder


def look(session: Session, meter: Meter, picture: Callable[[Sequence[Point]], Any]) -> Found:
    """The search itself, with its bar and its processes."""
    settings = session.settings
    with Progress(draw=picture) as bar, evaluator(session, meter, bar) as evaluate:
        return search(
            session.problem.starts(settings.step),
            evolution=settings.evolution(),
            strategy=session.strategy,
            book=Book(evaluate, target=session.problem.target, samples=settings.samples),
            seed=session.request.config.cfg.seed,
            watch=bar.iteration,
        )


def opening(session: Session) -> list[str]:
    problem, loaded = session.problem, session.loaded
    before = len(session.journal.known)
    lines = [
        f"model    {loaded.path}, step {loaded.step:,}",
        f"search   {problem.kind}, {problem.original_len:,} -> {problem.target:,} tokens ({problem.scale:g}x), "
        f"{wanted_objective(session.settings, problem)}, {session.settings.strategy}",
        f"folder   {session.folder}",
    ]
    return lines + ([f"going on with {before:,} measurements that were made before"] if before else [])


def worker_of(session: Session) -> Worker:
    return Worker(
        ckpt=str(session.loaded.path),
        samples=session.samples,
        objective=session.objective,
        rule_of=session.problem.rule_of,
        device=session.device,
        precision=session.precision,
    )


@contextlib.contextmanager
def evaluator(session: Session, meter: Meter, bar: Progress) -> Iterator[Evaluate]:
    """What measures jobs: here, or in as many processes as asked for."""
    workers = workers_of(session)
    with contextlib.ExitStack() as stack:
        runner = Alone(meter) if workers == 1 else stack.enter_context(Pool(worker_of(session), workers))
        yield Recorded(runner, session.journal, done=bar.job)


def workers_of(session: Session) -> int:
    """As asked for; else one per CUDA device, or per core up to MOST_WORKERS."""
    asked = session.request.config.cfg.workers
    if asked is not None:
        return int(asked)
    if session.device == "cuda":
        return torch.cuda.device_count()
    return min(MOST_WORKERS, os.cpu_count() or 1)


@contextlib.contextmanager
def one_thread(device: str) -> Iterator[None]:
    """Give torch its threads back afterwards."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        if device == "cpu":
            torch.set_num_threads(before)


def measured(session: Session, meter: Meter, name: str, rule: Any) -> Losses:
    """The losses of a rule on every sample, from the journal where it has them."""
    if name not in session.journal.baselines:
        target = session.problem.target
        session.journal.add_baseline(name, meter.losses(rule, target, range(session.settings.samples)))
    return session.journal.baselines[name]


def with_reference(objective: Objective, losses: Losses) -> Objective:
    """A mixed objective counts in YaRN's losses."""
    if not isinstance(objective, Mixed):
        return objective
    return Mixed(answer=means(losses)[0], text=means(losses)[1])


def score(objective: Objective, losses: Losses) -> float:
    return math.fsum(objective.value(*pair) for pair in losses) / len(losses)


def means(losses: Losses) -> tuple[float, float]:
    return tuple(math.fsum(column) / len(losses) for column in zip(*losses))  # type: ignore[return-value]


def write(session: Session, found: Found, losses: Mapping[str, Losses], seconds: float) -> None:
    """Table, option and search.json, and the command that uses the option."""
    problem, rule = session.problem, session.problem.found(found.factors, found.first)
    target = str(session.request.config.cfg.rope._target_)
    rows = [row(session.objective, name, own) for name, own in losses.items()]
    title = f"{problem.kind} at {problem.target:,} tokens ({session.objective.unit})"
    print(render(["rule", "score", "needle ppl", "text ppl"], rows, title=title, bold=[len(rows) - 1]))
    about = (
        f"{problem.kind} for {problem.target:,} tokens, searched: score {found.score:.4f}, "
        f"YaRN {score(session.objective, losses['yarn']):.4f}."
    )
    write_option(session.option, rule, target=target, about=about, folder=session.folder)
    write_json(
        session.folder / "search.json",
        {
            "checkpoint": str(session.loaded.path),
            "overrides": redact_overrides(session.request.config.overrides),
            "rope": {"kind": problem.kind, **plain_rule(rule)},
            "target": problem.target,
            "objective": wanted_objective(session.settings, problem),
            "found": dataclasses.asdict(found),
            "scores": {name: score(session.objective, own) for name, own in losses.items()},
            "losses": losses,
            "seconds": seconds,
        },
    )
    print(f"factors  {shown(found.factors)} (searched from pair {found.first})")
    print(f"cost     {found.tokens:,} tokens, {found.candidates:,} candidates, {found.iterations} iterations")
    print(f"option   {session.option}\nresults  {session.folder / 'search.json'}")
    print(f"use it   aptlab eval ckpt={session.loaded.path} rope={session.option.stem}")


def row(objective: Objective, name: str, losses: Losses) -> list[str]:
    answer, text = means(losses)
    needle = number(math.exp(min(answer, 700)), 3) if objective.needles else "-"
    return [name, number(score(objective, losses), 4), needle, number(math.exp(min(text, 700)), 3)]


def plain_rule(rule: Any) -> dict[str, Any]:
    """The values of a rule, without the factors that a search has yet to find."""
    return {name: value for name, value in dataclasses.asdict(rule).items() if name not in ("long", "short")}


def digest(identity: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]


def make_folder(out: str | None, ckpt: Path, name: str) -> Path:
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
