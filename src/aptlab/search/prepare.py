"""Everything that a search needs, opened and checked before anything is measured."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aptlab.checkpoint import find_run_folder, read_manifest
from aptlab.config import Config, build
from aptlab.device import resolve_precision
from aptlab.evals.runner import make_data
from aptlab.restore.load import LoadedModel, load_network, locate_checkpoint, require_decoder
from aptlab.runs.folder import make_folder
from aptlab.search.journal import SearchJournal
from aptlab.search.needles import SearchSample, count_needle_tokens, make_samples
from aptlab.search.objectives import get_objective
from aptlab.search.option import check_option_free, make_option_path
from aptlab.search.problem import SearchProblem, make_search_problem
from aptlab.search.settings import SearchSettings
from aptlab.search.strategies import Strategy, get_strategy
from aptlab.search.worker import SearchWorker


@dataclass(frozen=True)
class SearchOutput:
    """Where a search writes: the folder of journal, figure and search.json, and the file of the option."""

    folder: Path
    option: Path
    journal: SearchJournal


@dataclass(frozen=True)
class PreparedSearch:
    """A search that can begin.

    config   the request as composed
    problem  what is searched for, on the network of `loaded`
    worker   what measures candidates; its objective has not yet the unit that a reference rule's losses give it
    """

    config: Config
    settings: SearchSettings
    loaded: LoadedModel
    problem: SearchProblem
    strategy: Strategy
    worker: SearchWorker
    output: SearchOutput

    @property
    def objective_name(self) -> str:
        """The objective that was asked for, else the published one."""
        return self.settings.objective or self.problem.objective


def prepare_search(
    config: Config, settings: SearchSettings, target: int, fill: Callable[[dict[str, Any]], dict[str, Any]]
) -> PreparedSearch:
    """Open what a request names; raises AptlabError for everything that can be wrong.

    config  the checked request, which lacks what only the checkpoint knows
    target  tokens to reach
    fill    the checkpoint's configuration -> the request's plain values
    """
    cfg = config.cfg
    device = build(cfg.device).torch_device
    precision = resolve_precision(cfg.precision, device)
    loaded = require_decoder(load_network(locate_checkpoint(cfg.ckpt, root=cfg.paths.root)), "aptlab search")
    values = fill(loaded.config)
    head_dim = loaded.net.shape.head_sizes()[2]
    problem = make_search_problem(values["rope"], loaded.net.rope, head_dim=head_dim, target=target)
    problem.starts(settings.step)
    objective = get_objective(name := settings.objective or problem.objective)
    data = make_data(loaded, values.get("data"), values.get("source"))
    encoder = data.tokenizer if objective.needles else None
    least = count_needle_tokens(encoder) if encoder is not None else 1
    strategy = get_strategy(settings.strategy).fitted(problem.target, least)
    samples = collect_samples(problem, settings.samples, strategy, data, encoder, cfg.seed)
    identity = {
        "checkpoint": read_manifest(loaded.path).sha256,
        "data": data.fingerprint,
        "rope": {"kind": problem.kind, **strip_rule_factors(problem.rule)},
        "target": problem.target,
        "search": {**settings.plain(), "objective": name},
        "seed": cfg.seed,
        "precision": precision,
        "device": device,
    }
    choice = str(config.choices["rope"])
    folder = make_search_folder(values["out"], loaded.path, f"{choice}-{problem.target}-{hash_identity(identity)}")
    option = make_option_path(values["name"] or f"{choice}_{problem.target}")
    check_option_free(option, folder)
    worker = SearchWorker(
        ckpt=str(loaded.path),
        samples=samples,
        objective=objective,
        rule_of=problem.rule_of,
        device=device,
        precision=precision,
    )
    output = SearchOutput(folder, option, SearchJournal(folder / "journal.jsonl", identity))
    return PreparedSearch(config, settings, loaded, problem, strategy, worker, output)


def collect_samples(
    problem: SearchProblem, count: int, strategy: Strategy, data: Any, encoder: Any, seed: int
) -> dict[int, list[SearchSample]]:
    """Samples of the target length, and shorter ones with positions up to it where the strategy reads such."""
    return {
        length: make_samples(
            data.store.val,
            encoder,
            length=length,
            count=count,
            span=problem.target,
            after=problem.original_len,
            seed=seed,
            prefix=data.tokenizer.prefix,
        )
        for length in (problem.target // divisor for divisor in strategy.lengths)
    }


def strip_rule_factors(rule: Any) -> dict[str, Any]:
    """The values of a rule, without the factors that a search has yet to find."""
    return {name: value for name, value in dataclasses.asdict(rule).items() if name not in ("long", "short")}


def hash_identity(identity: Mapping[str, Any]) -> str:
    """8 hex digits that name a search: everything on which its result depends, processes and folders not among it."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]


def make_search_folder(out: str | None, ckpt: Path, name: str) -> Path:
    """`out`, or searches/<name> in the folder of the checkpoint's run."""
    return make_folder(out if out is not None else find_run_folder(ckpt) / "searches" / name).absolute()
