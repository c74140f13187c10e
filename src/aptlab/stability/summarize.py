"""From trials to rows: one for each method and precision under a stress. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from aptlab.report.statistics import compute_bootstrap_interval, compute_wilson_interval
from aptlab.stability.settings import TUNING

Record = Mapping[str, Any]
Method = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class StabilityRow:
    """What one method did under one stress in one precision, over all rates and seeds.

    trials, bad      how many trained, and how many met a loss or gradient that is not finite
    time_to_bad      median step of these; None where there is none
    worst            largest max |u| and largest logit; shares of numbers beyond a range: of the worst trial
    final            mean loss at each multiple, over the seeds that came to the end; None where none did
    sensitivity      mean over rates of min(loss, first loss) - smallest mean loss (Wortsman et al. 2023, 2309.14322)
    area             mean over rates of min(loss, first loss): the area under the loss over log rates, per decade
    difference       of `area` from the first method's, paired by seed: mean and 95 % bootstrap interval; None with one
                     seed, or for the first method
    """

    method: Method
    label: str
    precision: str
    trials: int
    bad: int
    time_to_bad: float | None
    skipped: float
    spikes: float
    peak: float | None
    logit: float | None
    beyond_fp16: float
    beyond_e4m3: float
    final: Mapping[float, float | None]
    best: float | None
    sensitivity: float
    area: float
    difference: tuple[float, float, float] | None
    seconds: float | None
    parameters: int
    flops: int

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the share of trials that broke."""
        return compute_wilson_interval(self.bad, self.trials)


def summarize_stress(records: Iterable[Record], stress: str) -> list[StabilityRow]:
    """The rows of one stress, methods in the order in which they first came; none where nothing was trained."""
    found = [record for record in records if record["stress"] == stress]
    methods = list(dict.fromkeys(tuple(record["method"]) for record in found))
    rows: list[StabilityRow] = []
    for precision in dict.fromkeys(record["precision"] for record in found):
        of_all = {
            method: [r for r in found if tuple(r["method"]) == method and r["precision"] == precision]
            for method in methods
        }
        base = compute_areas(of_all[methods[0]])
        for method, label in zip(methods, label_methods(methods), strict=True):
            if mine := of_all[method]:
                difference = None if method == methods[0] else compare_areas(compute_areas(mine), base)
                rows.append(summarize_method(method, label, precision, mine, difference))
    return rows


def summarize_method(
    method: Method, label: str, precision: str, mine: Sequence[Record], difference: tuple[float, float, float] | None
) -> StabilityRow:
    """One row."""
    bad = [record["bad"] for record in mine if record["bad"] is not None]
    final = {multiple: average_final(mine, multiple) for multiple in sorted({r["multiple"] for r in mine})}
    area = fmean(compute_areas(mine).values())
    lowest = min((loss for loss in final.values() if loss is not None), default=None)
    seconds = [record["seconds"] for record in mine if record["seconds"] is not None]
    return StabilityRow(
        method=method,
        label=label,
        precision=precision,
        trials=len(mine),
        bad=len(bad),
        time_to_bad=median(bad) if bad else None,
        skipped=fmean(record["skipped"] for record in mine),
        spikes=fmean(record["spikes"] for record in mine),
        peak=find_largest(record["peak"] for record in mine),
        logit=find_largest(record["logit"] for record in mine),
        beyond_fp16=max(record["beyond_fp16"] for record in mine),
        beyond_e4m3=max(record["beyond_e4m3"] for record in mine),
        final=final,
        best=lowest,
        sensitivity=area - lowest if lowest is not None else 0.0,
        area=area,
        difference=difference,
        seconds=median(seconds) if seconds else None,
        parameters=mine[0]["parameters"],
        flops=mine[0]["flops"],
    )


def average_final(mine: Sequence[Record], multiple: float) -> float | None:
    """Mean loss at one multiple over the seeds that came to the end."""
    losses = [record["final"] for record in mine if record["multiple"] == multiple and record["final"] is not None]
    return fmean(losses) if losses else None


def find_largest(values: Iterable[float | None]) -> float | None:
    """The largest number; None, as infinity is written, where one was not finite or none was seen."""
    seen = list(values)
    return None if not seen or None in seen else max(value for value in seen if value is not None)


def cap_loss(record: Record) -> float:
    """min(loss, first loss): a training that broke counts as one that learned nothing."""
    start = record["start"] if record["start"] is not None else float("inf")
    return start if record["final"] is None else min(record["final"], start)


def compute_areas(mine: Sequence[Record]) -> dict[int, float]:
    """Of each seed, the mean over rates of the capped loss."""
    seeds = sorted({record["seed"] for record in mine})
    return {seed: fmean(cap_loss(record) for record in mine if record["seed"] == seed) for seed in seeds}


def compare_areas(mine: Mapping[int, float], base: Mapping[int, float]) -> tuple[float, float, float] | None:
    """Mean of the paired differences and its bootstrap interval; None with fewer than two seeds in common."""
    differences = [mine[seed] - base[seed] for seed in sorted(mine.keys() & base.keys())]
    return (fmean(differences), *compute_bootstrap_interval(differences)) if len(differences) > 1 else None


def label_methods(methods: Sequence[Method]) -> list[str]:
    """What sets each method apart: its overrides without those that all have."""
    shared = set.intersection(*map(set, methods)) if len(methods) > 1 else set()
    return [" ".join(word for word in method if word not in shared) or "default" for method in methods]


def list_stresses(records: Iterable[Record]) -> list[str]:
    """Stresses that something was trained under, in the order in which they came."""
    return [name for name in dict.fromkeys(record["stress"] for record in records) if name != TUNING]
