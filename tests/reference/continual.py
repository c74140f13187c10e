"""What a buffer holds, and herding, written from the papers with plain loops. Imports nothing of aptlab."""

from __future__ import annotations

import math


def hold_smallest(stream, capacity):
    """`stream` of (number, group, key): the samples held, by sorting all that were ever seen.

    One group: a reservoir. Several: equal shares, the rest of the division to the first groups in the order of their
    numbers.
    """
    groups = sorted({group for _, group, _ in stream})
    held = []
    for place, group in enumerate(groups):
        quota = capacity // len(groups) + (1 if place < capacity % len(groups) else 0)
        mine = sorted((key, number) for number, other, key in stream if other == group)
        held += [number for _, number in mine[:quota]]
    return sorted(held)


def splitmix(x):
    """One step of SplitMix64 (Steele, Lea & Flood 2014)."""
    word = (1 << 64) - 1
    z = (x + 0x9E3779B97F4A7C15) & word
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & word
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & word
    return z ^ (z >> 31)


def make_unit(vector):
    length = math.sqrt(sum(value * value for value in vector))
    return [value / length for value in vector] if length else vector


def herd(features, count, normalize):
    """Algorithm 4 of Rebuffi et al. 2017; with `normalize`, all features and means have length 1 (their section 2)."""
    fix = make_unit if normalize else list
    phi = [fix(list(vector)) for vector in features]
    size = len(phi[0])
    center = fix([sum(vector[d] for vector in phi) / len(phi) for d in range(size)])
    chosen = []
    for k in range(1, count + 1):
        best = None
        for i, vector in enumerate(phi):
            if i in chosen:
                continue
            mean = fix([(vector[d] + sum(phi[j][d] for j in chosen)) / k for d in range(size)])
            distance = math.sqrt(sum((a - b) ** 2 for a, b in zip(center, mean)))
            if best is None or distance < best[0]:
                best = (distance, i)
        chosen.append(best[1])
    return chosen
