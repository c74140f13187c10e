"""CAMPUS: several difficulties at once, and the model's perplexity says which of them goes on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from aptlab.curriculum.base import Answer, Clock, Course, Curriculum, Decision, Probe, RowSchedule, sort_rows
from aptlab.curriculum.metrics import (
    MTLD,
    CompressionRatio,
    DifficultyMetric,
    ModelLoss,
    TokenCount,
    UnigramNLL,
)
from aptlab.curriculum.pacing import CampusPacing, Pacing
from aptlab.curriculum.tape import draw_uniform, shuffle_numbers
from aptlab.errors import ConfigError
from aptlab.limits import Fraction, OpenFraction, Positive, PositiveInt, validate_limits

MOST_NATS = 700.0  # exp of more is no float
SLICE, PROBED, REPLAYED, DRAWN = range(1, 5)  # purposes of random numbers


class Probing(NamedTuple):
    """What a pass measures: rows of a slice, and whether those that still wait are measured again at every choice."""

    rows: int
    again: bool

    def describe(self) -> str:
        """For the log."""
        if not self.rows:
            return "nothing: metrics take turns"
        rows = f"{self.rows} {'row' if self.rows == 1 else 'rows'} of each slice"
        return rows if self.again else f"{rows}, once"


def list_default_metrics() -> dict[str, DifficultyMetric]:
    """Four perspectives that no model is needed for."""
    return {"n_tokens": TokenCount(), "mtld": MTLD(), "compression": CompressionRatio(), "unigram": UnigramNLL()}


@dataclass(frozen=True, kw_only=True)
class Campus(Curriculum):
    """Competence-aware multi-perspective curriculum (Li et al. 2025, arXiv:2509.13790).

    Each of n metrics sorts all rows, and `pacing` cuts each sorted list into `slices`. Whenever rows run out, the mean
    loss of the model as it is then is measured on each metric's next slice, and the slice of the lowest perplexity is
    trained on, shuffled. A row that was trained on through one metric is taken out of the others, so that a pass shows
    each row once. The paper asks before every step, over whole slices; here one asks when a slice is used up, of
    `probe` rows of each, and of fewer where those would be more than `probe_share` of the rows of a pass. Where even
    one row of each is more than that, a slice is measured once, when it becomes its metric's next, and what it
    answered then stands until it is trained on.

    metrics      by name; null takes one out
    slices       of each metric
    mode         argmin (the paper's), softmax (probability ~ perplexity^(-1/temperature)), round_robin (asks nothing)
    probe        rows of a slice that are measured
    probe_share  of a pass that may be measured; null: no limit. Too little for one row of every slice once: metrics
                 take turns
    replay       share of trained rows that come again from earlier slices of the pass
    """

    name: ClassVar[str] = "campus"

    metrics: Mapping[str, DifficultyMetric | None] = field(default_factory=list_default_metrics)
    pacing: Pacing = field(default_factory=CampusPacing)
    slices: PositiveInt = 8
    mode: Literal["argmin", "softmax", "round_robin"] = "argmin"
    temperature: Positive = 1.0
    probe: PositiveInt = 64
    probe_share: Fraction | None = 0.05
    replay: OpenFraction = 0.0

    def __post_init__(self) -> None:
        validate_limits(self)
        if not self.list_metrics():
            raise ConfigError("metrics is empty; campus sorts by at least one, such as metrics.mtld")

    def list_metrics(self) -> Mapping[str, DifficultyMetric]:
        return {name: metric for name, metric in self.metrics.items() if metric is not None}

    def plan_probing(self, size: int) -> Probing:
        """What is measured in a pass of `size` rows: n metrics have n * slices of them, and choose as many times."""
        metrics = len(self.list_metrics())
        if self.mode == "round_robin" or metrics == 1:
            return Probing(0, again=False)
        if self.probe_share is None:
            return Probing(self.probe, again=True)
        once = math.floor(self.probe_share * size / (metrics * self.slices))  # rows, if each slice is measured once
        again = once // metrics > 0
        return Probing(min(self.probe, once // metrics if again else once), again=again)

    def open(self, course: Course) -> RowSchedule:
        return CampusSchedule(self, course)


class CampusSchedule(RowSchedule):
    """Passes over the rows, slice by slice.

    pass_number  of the pass, from 0
    open_to      slices of each metric that were trained on or passed over
    choices      slices chosen in all
    known        slices that were measured and still wait: metric -> (slice, loss)
    """

    name = "campus"

    def __init__(self, rule: Campus, course: Course) -> None:
        super().__init__(course)
        self.rule, self.names = rule, list(rule.list_metrics())
        self.of_model = {name: one for name, one in rule.list_metrics().items() if isinstance(one, ModelLoss)}
        self.pass_number, self.size, self.choices, self.passed = -1, 0, 0, 0
        self.open_to = [0] * len(self.names)
        self.known: dict[int, tuple[int, float]] = {}
        self.done = np.ones(course.rows, dtype=bool)  # rows that this pass needs no more
        self.measured: dict[str, np.ndarray] = {}  # difficulties by the model
        self._stale: list[str] = []  # metrics whose difficulties must be measured now
        self._orders: dict[str, np.ndarray] = {}
        self._pool = np.zeros(0, dtype=np.int64)  # rows of the pass

    # What is asked

    def prepare(self, clock: Clock) -> Sequence[Probe]:
        self.begin_tape(clock)
        while self.tape.end < clock.until:
            if self.done.all():
                self._open_pass(clock)
            if self._stale:
                return [Probe(what="rows", ids=np.flatnonzero(~self.done)) for _ in self._stale]
            slices = self._list_slices()
            unknown = self._list_unknown(slices)
            if unknown:
                return [self._make_probe(m, rows) for m, rows in unknown]
            self._take(clock, slices)
        return ()

    def answer(self, clock: Clock, answers: Sequence[Answer]) -> None:
        if self._stale:
            for name, losses in zip(self._stale, answers, strict=True):
                self.measured.setdefault(name, np.zeros(self.course.rows, dtype=np.float32))[~self.done] = losses
                self._orders.pop(name, None)
                self.known.pop(self.names.index(name), None)  # its slices are of other rows now
            self._stale = []
            return
        slices = self._list_slices()
        for (m, _), value in zip(self._list_unknown(slices), map(float, answers), strict=True):
            self.known[m] = self.open_to[m], value if math.isfinite(value) else math.inf
        self._take(clock, slices)

    def _list_unknown(self, slices: Sequence[tuple[int, np.ndarray]]) -> list[tuple[int, np.ndarray]]:
        """The slices that must be measured before one of them is chosen."""
        if len(slices) < 2 or not self.rule.plan_probing(self.size).rows:
            return []
        return [(m, rows) for m, rows in slices if self.known.get(m, (-1,))[0] != self.open_to[m]]

    def _make_probe(self, m: int, rows: np.ndarray) -> Probe:
        count, number = self.rule.plan_probing(self.size).rows, self.choices * len(self.names) + m
        some = shuffle_numbers(len(rows), seed=self.course.seed, purpose=PROBED, number=number, take=count)
        return Probe(what="loss", ids=rows[some])

    # What is decided

    def _open_pass(self, clock: Clock) -> None:
        self.pass_number += 1
        left = clock.rows_left - (self.tape.end - clock.position)
        self.size = min(self.course.rows, max(1, left))
        self._pool = self.course.choose_pool(self.pass_number, self.size)
        self.done[:] = True
        self.done[self._pool] = False
        self.open_to, self.passed, self.known = [0] * len(self.names), 0, {}
        self._orders, self._stale = {}, list(self.of_model)
        told = self.pass_number or len(self.names) < 2 or self.rule.mode == "round_robin"
        if not told and (plan := self.rule.plan_probing(self.size)) != (self.rule.probe, True):
            line = (
                f"curriculum: probe={self.rule.probe} rows of each slice would be more than probe_share="
                f"{self.rule.probe_share:g} of the {self.size:,} rows of this pass; campus measures {plan.describe()}"
            )
            self.decisions.append(Decision(step=clock.step, numbers={}, line=line, urgent=not plan.rows))

    def _choose(self, losses: Sequence[float]) -> int:
        """The place of the chosen slice among the candidates."""
        best = int(np.argmin(losses))
        if self.rule.mode == "argmin" or not math.isfinite(losses[best]):
            return best
        weights = np.exp(-(np.array(losses) - losses[best]) / self.rule.temperature)
        shares = np.cumsum(weights) / weights.sum()
        drawn = draw_uniform(seed=self.course.seed, purpose=DRAWN, number=self.choices)
        return min(int(np.searchsorted(shares, drawn, side="right")), len(losses) - 1)

    def _list_slices(self) -> list[tuple[int, np.ndarray]]:
        """Each metric's next slice, as (number of the metric, rows), without those that are empty."""
        edges, found = self.rule.pacing.cut_edges(self.size, self.rule.slices), []
        for m, name in enumerate(self.names):
            order = self._sort(name)
            while self.open_to[m] < self.rule.slices:
                # From the first row on: a metric that is measured anew may have moved a row to an earlier slice.
                head = order[: edges[self.open_to[m] + 1]]
                rows = head[~self.done[head]]
                if len(rows):
                    found.append((m, rows))
                    break
                self.open_to[m] += 1
        return found

    def _sort(self, name: str) -> np.ndarray:
        """All rows of the pass by a metric."""
        if name not in self._orders:
            scores = self.measured[name] if name in self.of_model else self.course.scores[name]
            self._orders[name] = sort_rows(self._pool, scores)
        return self._orders[name]

    def _take(self, clock: Clock, slices: Sequence[tuple[int, np.ndarray]]) -> None:
        """Choose a slice, write it, with what is replayed, and note it."""
        asked = len(slices) > 1 and self.rule.plan_probing(self.size).rows > 0
        losses = [self.known[m][1] for m, _ in slices] if asked else []
        place = self._choose(losses) if losses else self.choices % len(slices)
        (m, rows), seed = slices[place], self.course.seed
        earlier = self._replay(len(rows))
        mixed = np.concatenate([rows, earlier])
        order = shuffle_numbers(len(mixed), seed=seed, purpose=SLICE, number=self.choices)
        self.tape.append(mixed[order])
        self.done[rows] = True
        self.passed += len(rows)
        self.open_to[m] += 1
        self.choices += 1
        if self.rule.plan_probing(self.size).again:
            self.known = {}
        refreshed = (name for name, one in self.of_model.items() if one.refresh and self.choices % one.refresh == 0)
        self._stale = [] if self.done.all() else list(refreshed)
        numbers = {
            "curriculum/pass": self.pass_number + 1,
            "curriculum/metric": m,
            "curriculum/slice": self.open_to[m],
            "curriculum/rows": len(rows),
            "curriculum/competence": self.passed / self.size,
        }
        probed = zip((self.names[i] for i, _ in slices), losses) if losses else ()
        numbers |= {f"curriculum/ppl_{name}": math.exp(min(loss, MOST_NATS)) for name, loss in probed}
        self.decisions.append(Decision(step=clock.step, numbers={key: float(one) for key, one in numbers.items()}))

    def _replay(self, count: int) -> np.ndarray:
        """Rows of earlier slices of the pass that come again beside `count` new ones."""
        share = self.rule.replay
        if not share or not self.passed:
            return np.zeros(0, dtype=np.int64)
        seen = self._pool[self.done[self._pool]]
        wanted = round(share / (1 - share) * count)
        picked = shuffle_numbers(len(seen), seed=self.course.seed, purpose=REPLAYED, number=self.choices, take=wanted)
        return seen[picked]

    # What is kept

    def state(self) -> dict[str, Any]:
        own = {
            "names": list(self.names),
            "pass_number": self.pass_number,
            "size": self.size,
            "choices": self.choices,
            "passed": self.passed,
            "open_to": list(self.open_to),
            "known": {str(m): list(one) for m, one in self.known.items()},
            "stale": list(self._stale),
            "done": np.packbits(self.done),
            "measured": dict(self.measured),
        }
        return {**super().state(), **own}

    def load(self, state: Mapping[str, Any]) -> None:
        super().load(state)
        for name in ("pass_number", "size", "choices", "passed"):
            setattr(self, name, int(state[name]))
        self.open_to = [int(count) for count in state["open_to"]]
        self.known = {int(m): (int(number), float(loss)) for m, (number, loss) in state.get("known", {}).items()}
        self.done = np.unpackbits(np.asarray(state["done"]), count=self.course.rows).astype(bool)
        self.measured = {name: np.asarray(values) for name, values in state["measured"].items()}
        self._stale, self._orders = list(state["stale"]), {}
        self._pool = self.course.choose_pool(max(0, self.pass_number), self.size)
