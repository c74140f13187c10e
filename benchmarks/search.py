"""What a search for factors finds and costs: YaRN, NTK, PI, the published evolution and successive halving.

Small byte models are trained here on the Python library's own text with numbers hidden in it, until they can repeat a
number from their context; then their context is extended without training. Scores are the mean loss (nats) on the
digits of hidden numbers: on the samples that the search sees, and on others that it never sees. Every network adds a
line to the journal, from which `search_report.py` makes the table and the figures. One network says little: what a
rule does without training differs more between two networks than between two rules.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import platform
import random
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

import search_report
from aptlab.data.module import TextData
from aptlab.data.sources import Stdlib
from aptlab.data.tokenizers import ByteTokenizer
from aptlab.models import Decoder
from aptlab.nn.positions.rope import NTK, Linear, LongRoPE, LongRoPE2, Standard, YaRN
from aptlab.nn.shape import Shape
from aptlab.search.engine import SearchStart, search_factors
from aptlab.search.evaluation_cache import EvaluationCache
from aptlab.search.meter import CandidateScorer
from aptlab.search.needles import make_needle_sample, make_samples
from aptlab.search.objectives import NeedleObjective
from aptlab.search.pool import ProcessPool
from aptlab.search.seeds import (
    build_v1_space,
    build_v2_seeds,
    build_v2_space,
    compute_published_factors,
    list_critical_pairs,
)
from aptlab.search.settings import SearchSettings
from aptlab.search.strategies import STRATEGIES
from aptlab.testing.tiny import make_decoder
from common import RESULTS, machine, versions

BASE, CONTEXT, SHAPE = 10_000.0, 192, Shape(dim=96, depth=3, heads=3, hidden=288)
SAMPLES, HELD_OUT, STEP = 10, 40, 0.01
HEAD_DIM = SHAPE.head_sizes()[2]
LATE = 10  # a critical pair beyond the theoretical one, where this small model wants it


def decoder() -> Decoder:
    return make_decoder(SHAPE, vocab=ByteTokenizer().vocab_size, rope=Standard(base=BASE))


def text() -> TextData:
    return TextData(Stdlib(), tokenizer=ByteTokenizer(), context=CONTEXT, batch=4)


def train(path: Path, steps: int, seed: int, *, batch: int = 24, rate: float = 3e-3) -> None:
    """Three of four rows hide a number; the loss of its repetition counts on top of the mean over all tokens."""
    side, rng = text().store.train, random.Random(seed)
    torch.manual_seed(seed)
    net = decoder().train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    hidden = torch.arange(batch) % 4 != 0
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 100) * (0.55 + 0.45 * math.cos(math.pi * step / steps))
        rows = []
        for wanted in hidden.tolist():
            start = rng.randrange(len(side.tokens) - CONTEXT - 1)
            row = np.asarray(side.tokens[start : start + CONTEXT], dtype=np.int64)
            rows.append(
                make_needle_sample(row, ByteTokenizer(), rng.random(), CONTEXT, 0, rng).tokens if wanted else row
            )
        tokens = torch.from_numpy(np.stack(rows))
        logits = net(tokens[:, :-1]).logits
        nats = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none").view(batch, -1)
        answers = nats[hidden][:, -7:].mean()
        optimizer.zero_grad()
        (nats.mean() + answers).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % 250 == 0:
            print(f"step {step + 1}: loss {nats.mean():.3f}, hidden numbers {answers:.3f}", flush=True)
    torch.save(net.state_dict(), path)


class Make:
    """Makes a meter in every process: the trained network and `count` samples."""

    def __init__(self, weights: Path, rule, target: int, *, count: int = SAMPLES, seed: int = 0) -> None:
        self.weights, self.rule, self.target, self.count, self.seed = weights, rule, target, count, seed

    def __call__(self, number: int) -> CandidateScorer:
        torch.set_num_threads(1)
        net = decoder()
        net.load_state_dict(torch.load(self.weights))
        settings: dict[str, Any] = {"count": self.count, "span": self.target, "after": CONTEXT, "seed": self.seed}
        val = text().store.val
        lengths = (self.target, self.target // 4)
        samples = {length: make_samples(val, ByteTokenizer(), length=length, **settings) for length in lengths}
        return CandidateScorer(net, samples, objective=NeedleObjective(), rule_of=partial(with_factors, self.rule))


def with_factors(rule, factors):
    import dataclasses

    return dataclasses.replace(rule, long=tuple(factors))


def problems(target: int) -> dict[str, tuple[object, list[SearchStart]]]:
    """Rule and starts of both papers' spaces, and of the second with a later critical pair."""
    pairs, scale = HEAD_DIM // 2, target / CONTEXT
    known = compute_published_factors(base=BASE, head_dim=HEAD_DIM, original_len=CONTEXT, scale=scale)
    first = build_v1_space(pairs=pairs, scale=scale, step=STEP)
    firsts = list_critical_pairs(base=BASE, pairs=pairs, length=CONTEXT)
    second = [build_v2_space(one, pairs=pairs, scale=scale, step=STEP) for one in firsts]
    late = build_v2_space(LATE, pairs=pairs, scale=scale, step=STEP)
    settings = {"factor": scale, "original_len": CONTEXT, "base": BASE}
    return {
        "longrope": (LongRoPE(**settings), [SearchStart(first, tuple({first.nearest(f): 0 for f in known.values()}))]),
        "longrope2": (LongRoPE2(**settings), [SearchStart(space, tuple(build_v2_seeds(space))) for space in second]),
        f"longrope2, critical_dim={LATE}": (LongRoPE2(**settings), [SearchStart(late, tuple(build_v2_seeds(late)))]),
    }


def mean(losses: list[tuple[float, float]]) -> float:
    return statistics.fmean(answer for answer, _ in losses)


def searched(make: Make, starts: list[SearchStart], strategy: str, seed: int, iterations: int, workers: int):
    """One search: what it found, and its wall time with the network already loaded in all processes."""
    with ProcessPool(make, workers) as pool:

        def evaluate(jobs):
            found = dict(pool.run(jobs))
            return [found[i] for i in range(len(jobs))]

        evaluate([])
        started = time.perf_counter()
        cache = EvaluationCache(evaluate, target=make.target, samples=SAMPLES)
        settings = SearchSettings(iterations=iterations)
        found = search_factors(starts, settings=settings, strategy=STRATEGIES[strategy](), cache=cache, seed=seed)
        return found, time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", type=int, nargs="+", default=[0, 1, 2], help="seeds of their training")
    parser.add_argument("--steps", type=int, default=3000, help="training steps, 0.3 s each on one core")
    parser.add_argument("--target", type=int, default=4 * CONTEXT)
    parser.add_argument("--iterations", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=2, help="of searches of the first space; the others take one")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--weights", type=Path, help="keep weights in this folder, or take those that are there")
    parser.add_argument("--journal", type=Path, default=RESULTS / "search.jsonl", help="a line for each network")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = args.weights or Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        for seed in args.networks:
            weights = place / f"network_{seed}.pt"
            if not weights.exists():
                train(weights, args.steps, seed)
            line = measure(args, weights, seed)
            with open(args.journal, "a") as journal:
                journal.write(json.dumps(line) + "\n")
    search_report.write_report(args.journal)


def measure(args: argparse.Namespace, weights: Path, seed: int) -> dict[str, Any]:
    """All rules and searches on one network: a line of the journal."""
    target, scale = args.target, args.target / CONTEXT
    shown = Make(weights, None, target)(0)
    held = Make(weights, None, target, count=HELD_OUT, seed=99)(0)
    rules = {
        "linear (PI)": Linear(factor=scale, base=BASE),
        "ntk": NTK(factor=scale, base=BASE),
        "yarn": YaRN(factor=scale, original_len=CONTEXT, base=BASE),
    }

    def both(rule) -> dict[str, float]:
        score, unseen = (
            mean(meter.losses(rule, target, range(n))) for meter, n in ((shown, SAMPLES), (held, HELD_OUT))
        )
        return {"score": round(score, 4), "unseen": round(unseen, 4)}

    searches = []
    for space, (rule, starts) in problems(target).items():
        for strategy in ("published", "halving"):
            for number in range(args.seeds if space == "longrope" else 1):
                make = Make(weights, rule, target)
                found, seconds = searched(make, starts, strategy, number, args.iterations, args.workers)
                curve = [(point.tokens, round(point.score, 4)) for point in found.curve]
                cost = {"tokens": found.tokens, "seconds": round(seconds), "from_pair": found.first}
                ends = both(with_factors(rule, found.factors)) | {"score": round(found.score, 4)}
                line = {"rule": space, "search": strategy, "seed": number, **ends, **cost}
                print("  ".join(str(value) for value in line.values()), flush=True)
                curve.append((found.tokens, round(found.score, 4)))
                searches.append(line | {"curve": curve, "factors": [round(f, 4) for f in found.factors]})
    return {
        "network": seed,
        **{name: getattr(args, name) for name in search_report.SETTING},
        "rules": {name: both(rule) for name, rule in rules.items()},
        "searches": searches,
        "machine": f"{machine()}; {args.workers} processes of one thread each",
        "versions": f"Python {platform.python_version()}, {versions('torch', 'numpy', 'aptlab')}",
        "date": str(datetime.date.today()),
    }


if __name__ == "__main__":
    main()
