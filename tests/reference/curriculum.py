"""Curricula and their metrics in plain loops over lists, written from the papers; nothing of aptlab is imported."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence


def mtld(words: Sequence[str], threshold: float = 0.72) -> float:
    """McCarthy and Jarvis (2010): mean over both directions of words per factor, the rest as a part of one."""
    both = []
    for side in (list(words), list(reversed(words))):
        factors, begin = 0.0, 0
        for end in range(1, len(side) + 1):
            string = side[begin:end]
            if len(set(string)) / len(string) < threshold:
                factors, begin = factors + 1.0, end
        rest = side[begin:]
        if rest:
            factors += (1 - len(set(rest)) / len(rest)) / (1 - threshold)
        both.append(len(side) / factors if factors > 0 else float(len(side)))
    return (both[0] + both[1]) / 2


def unigram_nll(rows: Sequence[Sequence[int]], row: Sequence[int]) -> float:
    """Mean of -ln p; one more than was counted for every id up to the largest, and one for all others together."""
    every = [token for one in rows for token in one]
    known = max(every) + 1
    total = 0.0
    for token in row:
        count = sum(1 for other in every if other == token) if token < known else 0
        total -= math.log((count + 1) / (len(every) + known + 1))
    return total / len(row)


def campus_scope(step: int, steps: int, first: float, p: float) -> float:
    """Li et al. (2025): s(1) given, s(t) = min(1, (p^t - s(1) p^T) / p^T + s(1) p); all rows at the end."""
    if step == 0:
        return 0.0
    if step == steps:
        return 1.0
    if step == 1:
        return first
    return min(1.0, (p**step - first * p**steps) / p**steps + first * p)


def linear_competence(step: int, steps: int, first: float) -> float:
    """Platanios et al. (2019), equation 5."""
    return min(1.0, step * (1 - first) / steps + first)


def root_competence(step: int, steps: int, first: float, p: float) -> float:
    """Platanios et al. (2019), equation 8; p = 2 is equation 7."""
    return min(1.0, (step * (1 - first**p) / steps + first**p) ** (1 / p))


def campus_pass(
    scores: Sequence[Sequence[float]], slices: int, first: float, p: float, loss: Callable[[Sequence[int]], float]
) -> list[tuple[int, set[int]]]:
    """The slices of one pass as (metric, rows): whenever one is needed, each metric's next slice is measured, without
    the rows that another metric has used already, and the one of the lowest perplexity is taken.
    """
    count = len(scores[0])
    lists = [sorted(range(count), key=lambda row, one=one: (one[row], row)) for one in scores]
    ends = [round(campus_scope(step, slices, first, p) * count) for step in range(slices + 1)]
    following, used, taken = [1] * len(scores), set(), []
    while len(used) < count:
        candidates = []
        for metric, rows in enumerate(lists):
            while following[metric] <= slices:
                step = following[metric]
                rest = [row for row in rows[ends[step - 1] : ends[step]] if row not in used]
                if rest:
                    candidates.append((metric, rest))
                    break
                following[metric] += 1
        perplexities = [math.exp(loss(rows)) for _, rows in candidates]
        metric, rows = candidates[perplexities.index(min(perplexities))]
        following[metric] += 1
        used |= set(rows)
        taken.append((metric, set(rows)))
    return taken


def stages(accuracies: Sequence[float], levels: int, threshold: float, patience: int, demote: float) -> list[int]:
    """The level after each measurement: a gate of competence, the mean of all measurements on the level, newer ones
    weighing more by 1 / 0.9 each.
    """
    level, seen, best, held, found = 1, [], -math.inf, 0, []
    for accuracy in accuracies:
        seen.append(accuracy)
        weights = [0.9 ** (len(seen) - 1 - i) for i in range(len(seen))]
        competence = sum(w * a for w, a in zip(weights, seen, strict=True)) / sum(weights)
        best, held = max(best, competence), held + 1 if competence >= threshold else 0
        if held >= patience and level < levels:
            level, seen, best, held = level + 1, [], -math.inf, 0
        elif level > 1 and best - competence > demote:
            level, seen, best, held = level - 1, [], -math.inf, 0
        found.append(level)
    return found
