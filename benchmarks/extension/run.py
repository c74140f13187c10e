"""Extend trained networks by every method, measure each, and write one line per measurement into a journal.

    python benchmarks/extension/corpus.py --out outputs/corpus.jsonl
    for seed in 0 1 2; do
        aptlab train recipe=context_base data.files=outputs/corpus.jsonl seed=$seed run_dir=outputs/base$seed
        aptlab train recipe=context_base data.files=outputs/corpus.jsonl seed=$seed run_dir=outputs/irope$seed \\
            rope=irope rope.inner.base=10000 rope.chunk=128 rope.growth.floor=512
    done
    python benchmarks/extension/run.py outputs/base? outputs/irope? --journal outputs/extension.jsonl
    python benchmarks/extension/report.py outputs/extension.jsonl

A seed is that of a base, of the search on it and of its fine-tuning. A base is measured with the methods for the rule
that it was trained with. What stands in the journal is not measured again, so a run that was stopped, or that
`--seconds` ended, goes on where it was.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

import aptlab
from aptlab.models import Decoder
from aptlab.nn.positions.rope import Rope, Standard
from aptlab.search.engine import SearchResult, search_factors
from aptlab.search.evaluation_cache import EvaluationCache, SearchJob, Values
from aptlab.search.meter import CandidateScorer
from aptlab.search.needles import count_needle_tokens
from aptlab.search.objectives import get_objective
from aptlab.search.prepare import collect_samples
from aptlab.search.problem import SearchProblem
from aptlab.search.settings import SearchSettings
from aptlab.search.strategies import get_strategy

sys.path.append(str(Path(__file__).parents[1]))

from common import machine, versions
from corpus import text_data, tokenizer
from measure import perplexities, scores
from methods import METHODS, Search, formula
from tune import fine_tune

Bases = dict[tuple[int, type[Rope]], tuple[Decoder, int]]  # by seed and rule: the network, its trained length
PLACE = ("machine", "versions")  # where a journal was begun, not what it measures


@dataclass(frozen=True)
class Unit:
    """One measurement. At factor 1 the network is as it was trained: "base", or the method that it was trained with."""

    seed: int
    factor: int
    method: str
    tuned: bool


def units(bases: Bases, factors: list[int], methods: list[str]) -> Iterator[Unit]:
    """In the order in which a run that is cut short is worth most: all seeds of a method before the next method."""
    for seed, rule in bases:
        yield Unit(seed, 1, at_its_length(rule), False)
    for tuned in (False, True):
        for factor in factors:
            for method in (METHODS[name] for name in methods):
                if method.mixed and not tuned:
                    continue
                for seed, rule in bases:
                    if rule is method.trained:
                        yield Unit(seed, factor, method.name, tuned)


def at_its_length(rule: type[Rope]) -> str:
    """What a network that was trained with this rule is called at its own length."""
    return "base" if rule is Standard else next(name for name, method in METHODS.items() if method.trained is rule)


class Journal:
    """Lines of JSON: the setting, searches and measurements, each on disk before the next begins.

    A line that a crash cut off is taken away, and measured again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        text = path.read_text() if path.exists() else ""
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            path.write_text(whole)
        self.lines: list[dict[str, Any]] = [json.loads(line) for line in whole.splitlines()]

    def find(self, **keys: Any) -> dict[str, Any] | None:
        return next((line for line in self.lines if all(line.get(key) == keys[key] for key in keys)), None)

    def add(self, line: dict[str, Any]) -> None:
        self.lines.append(line)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a") as file:
            file.write(json.dumps(line) + "\n")


class Study:
    """Bases by seed, and what is done to them."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.journal = args, Journal(args.journal)
        self.device = torch.device(args.device)
        self.precision = "bf16-mixed" if self.device.type == "cuda" else "32-true"
        self.where: dict[str, Any] = {"device": self.device, "precision": self.precision}
        self.bases: Bases = {}
        for folder in args.bases:
            loaded = aptlab.load(folder, device=self.device)
            seed, rule = int(loaded.config["seed"]), type(loaded.net.rope)
            known = {method.trained for method in METHODS.values()}
            if rule not in known:
                told = ", ".join(sorted(one.__name__ for one in known))
                raise SystemExit(f"{folder} was trained with {rule.__name__}; there are methods for {told}")
            if (seed, rule) in self.bases:
                raise SystemExit(f"{folder}: another base has seed {seed} too; give one of them, or train it anew")
            self.bases[seed, rule] = loaded.net, int(loaded.config["context"])
        self.methods = self.fitting(args.methods)

    def fitting(self, names: list[str] | None) -> list[str]:
        """The methods asked for, each of which needs a base; None = all that have one, and the others are told."""
        rules = {rule for _, rule in self.bases}
        without = [name for name in names or METHODS if METHODS[name].trained not in rules]
        if without:
            told = ", ".join(f"{name} (trained with {METHODS[name].trained.__name__})" for name in without)
            if names:
                raise SystemExit(f"--methods: no base is given for {told}")
            print(f"not measured, because no base is given: {told}", flush=True)
        return [name for name in names or METHODS if name not in without]

    def run(self) -> None:
        started = time.perf_counter()
        args, wanted = self.args, list(units(self.bases, self.args.factors, self.methods))
        self.agree(self.setting())
        for number, unit in enumerate(wanted, 1):
            if self.journal.find(kind="result", **asdict(unit)):
                continue
            if time.perf_counter() - started > args.seconds:
                print(f"{args.seconds} seconds are over before {unit}; the same command goes on", flush=True)
                return
            start = time.perf_counter()
            line = {"kind": "result", **asdict(unit), **self.measure(unit)}
            self.journal.add({**line, "seconds": time.perf_counter() - start})
            print(f"[{number}/{len(wanted)}] {told(self.journal.lines[-1])}", flush=True)
        print(f"all {len(wanted)} measurements are in {args.journal}", flush=True)

    def agree(self, setting: dict[str, Any]) -> None:
        """One journal is one budget: the first run writes it down, others must have the same."""
        before = self.journal.find(kind="setting")
        if before is None:
            self.journal.add({"kind": "setting", **setting})
            return
        other = [key for key, value in setting.items() if key not in PLACE and before[key] != value]
        if other:
            told = ", ".join(f"{key}={before[key]}, now {setting[key]}" for key in other)
            raise SystemExit(f"{self.args.journal} was measured with {told}; repeat those, or name another --journal")

    def setting(self) -> dict[str, Any]:
        """What the report says about the machine and the budget."""
        net, context = next(iter(self.bases.values()))
        parameters = sum(weight.numel() for weight in net.parameters())
        named = {key: value for key, value in vars(self.args).items() if isinstance(value, int)}
        versions_of = versions("torch", "triton", "aptlab")
        return {"context": context, "parameters": parameters, "machine": machine(), "versions": versions_of, **named}

    def base_of(self, unit: Unit) -> tuple[Decoder, int]:
        """The network it begins from, and the length that this was trained at."""
        return self.bases[unit.seed, Standard if unit.method == "base" else METHODS[unit.method].trained]

    def measure(self, unit: Unit) -> dict[str, Any]:
        """Perplexities by length, scores at the target, and what the rule was."""
        args, (base, context) = self.args, self.base_of(unit)
        target = context * unit.factor
        rule = self.rule(unit)
        net = base
        if unit.tuned:
            budget = {"steps": args.steps, "tokens_per_step": args.tokens_per_step, "seed": unit.seed}
            mixed = METHODS[unit.method].mixed
            net = fine_tune(base, rule, target=target, context=context, mixed=mixed, **budget, **self.where)
        with with_rope(net, rule):
            ppl = perplexities(net, context=context, factor=unit.factor, tokens=args.text_tokens, **self.where)
            counts = {"passkeys": args.passkeys, "each": args.ruler}
            return {"ppl": ppl, "scores": scores(net, length=target, **counts, **self.where)}

    def rule(self, unit: Unit) -> Rope:
        base, context = self.base_of(unit)
        if unit.factor == 1 or METHODS[unit.method].trained is not Standard:
            return base.rope
        method = METHODS[unit.method]
        if method.search is None:
            return formula(unit.method, original_len=context, factor=unit.factor)
        head_dim = base.shape.head_sizes()[2]
        problem = method.search.problem(original_len=context, factor=unit.factor, head_dim=head_dim)
        keys = {"kind": "search", "seed": unit.seed, "factor": unit.factor, "method": method.found_by}
        line = self.journal.find(**keys)
        if line is None:
            line = {**keys, **self.searched(problem, method.search, base, unit.seed)}
            self.journal.add(line)
        return problem.found(tuple(line["factors"]), line["first"])

    def searched(self, problem: SearchProblem, search: Search, base: Decoder, seed: int) -> dict[str, Any]:
        """The factors that `aptlab search` would find on this network with the same settings."""
        settings = SearchSettings(
            objective=search.objective,  # type: ignore[arg-type]
            strategy="halving",
            population=self.args.population,
            iterations=self.args.iterations,
            mutations=self.args.population // 4,
            crossovers=self.args.population // 4,
            parents=self.args.population // 2,
        )
        objective = get_objective(search.objective)
        encoder = tokenizer() if objective.needles else None
        least = count_needle_tokens(encoder) if encoder is not None else 1
        strategy = get_strategy(settings.strategy).fitted(problem.target, least)
        texts = collect_samples(problem, settings.samples, strategy, text_data(), encoder, seed)
        started = time.perf_counter()
        with with_rope(base, base.rope):
            meter = CandidateScorer(base, texts, objective=objective, rule_of=problem.rule_of, **self.where)

            def evaluate(jobs: Sequence[SearchJob]) -> list[Values]:
                return [meter(job) for job in jobs]

            cache = EvaluationCache(evaluate, target=problem.target, samples=settings.samples)
            result: SearchResult = search_factors(
                problem.starts(settings.step),
                settings=settings,
                strategy=strategy,
                cache=cache,
                seed=seed,
            )
        return {
            "factors": result.factors,
            "first": result.first,
            "score": result.score,
            "tokens": result.tokens,
            "seconds": time.perf_counter() - started,
        }


@contextlib.contextmanager
def with_rope(net: Decoder, rule: Rope) -> Iterator[None]:
    """`net` by this rule; afterwards by its own again."""
    own = net.rope
    net.swap_rope(rule)
    try:
        yield
    finally:
        net.swap_rope(own)


def told(line: dict[str, Any]) -> str:
    """One line of progress."""
    ppl, got = line["ppl"], line["scores"]
    ruler = [got[name] for name in got if name != "passkey"]
    kept, reached = next(iter(ppl.values())), list(ppl.values())[-1]
    return (
        f"seed {line['seed']} x{line['factor']} {line['method']}{' tuned' * line['tuned']}: ppl {kept:.2f} to "
        f"{reached:.2f}, pass key {got['passkey']:.0%}, RULER {sum(ruler) / len(ruler):.0%}, {line['seconds']:.1f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bases", nargs="+", help="run folders of recipe=context_base, one per seed and rule")
    parser.add_argument("--journal", type=Path, required=True)
    parser.add_argument("--factors", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), help="default: all that a base is given for")
    parser.add_argument("--steps", type=int, default=48, help="of fine-tuning")
    parser.add_argument("--tokens-per-step", type=int, default=65_536)
    parser.add_argument("--text-tokens", type=int, default=262_144, help="validation tokens for perplexities")
    parser.add_argument("--passkeys", type=int, default=16)
    parser.add_argument("--ruler", type=int, default=6, help="samples of each of the 13 tasks")
    parser.add_argument("--population", type=int, default=32, help="of a search, half of the published")
    parser.add_argument("--iterations", type=int, default=20, help="of a search, half of the published")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no measurement after this time")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    Study(parser.parse_args()).run()


if __name__ == "__main__":
    main()
