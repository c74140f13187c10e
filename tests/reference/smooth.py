"""Left-spin smoothing and its spike memory in Python floats, written from their definitions, one token at a time.

A token is a list of floats. Nothing of aptlab is imported.
"""

from __future__ import annotations

import math


def rms(x: list[float]) -> float:
    return math.sqrt(sum(v * v for v in x) / len(x) + 1e-12)


def softplus(x: float, kappa: float) -> float:
    return x if kappa * x > 500 else math.log(1 + math.exp(kappa * x)) / kappa


def left_spin(
    u, delta, carry, *, alpha, tau, beta, kappa, w1, w2, reference, kind="normalized", bound=1.0, lift=0.0, usual=None
):
    """One token through one join: returns u', the applied step, phi, s, g. `carry` is (step, phi) or None.

    usual  the usual size of this site's steps, where history goes by optimizer steps
    """
    d = rms(delta) / (rms(u) + 1e-3 * reference)
    a = 0.0
    if carry is not None:
        difference = [x - y for x, y in zip(delta, carry[0])]
        a = rms(difference) / (rms(delta) + rms(carry[0]) + 1e-6)
    if usual is not None:
        a = max(rms(delta) - usual, 0.0) / (rms(delta) + usual + 1e-6)
    s = w1 * d + w2 * a
    phi = alpha * max(softplus(s + lift - tau, kappa) - softplus(-tau, kappa), 0.0)
    if carry is not None:
        phi = (1 - beta) * carry[1] + beta * phi
    if kind == "normalized":
        g = 1 / math.sqrt(1 + phi * phi)
    elif kind == "cosine":
        g = math.cos(phi) if phi < math.pi / 2 else 0.0
    else:
        x, c = d + lift, bound - tau
        g = 1.0 if x <= tau else (tau + c * math.tanh((x - tau) / c)) / x
    step = [g * v for v in delta]
    return [x + y for x, y in zip(u, step)], step, phi, s, g


def usual_size(sizes: list[float], decay: float) -> float | None:
    """The running mean of the sizes of all optimizer steps so far; the plain mean of the first ones."""
    mean = None
    for n, size in enumerate(sizes, 1):
        share = max(1 - decay, 1 / n)
        mean = size if mean is None else (1 - share) * mean + share * size
    return mean


def scaled_sum(u, delta, weight):
    """u + diag(weight) delta: ReZero and fixed factors with one number, LayerScale with one for each channel."""
    weights = weight if isinstance(weight, list) else [weight] * len(u)
    return [x + w * y for x, y, w in zip(u, delta, weights)]


def layer_scale_start(blocks: int) -> float:
    """Touvron et al. 2021: 0.1 until depth 18, 1e-5 for depth 24, 1e-6 for deeper networks."""
    if blocks <= 18:
        return 0.1
    return 1e-5 if blocks <= 24 else 1e-6


def depth_decay(schedule: str, block: int, blocks: int, last: float) -> float:
    """The factor of one block; blocks are counted from 0."""
    if schedule == "constant":
        return last
    way = block / (blocks - 1) if blocks > 1 else 0.0
    return 1.0 + way * (last - 1.0) if schedule == "linear" else math.exp(way * math.log(last))


def deep_norm(u, delta, blocks: int, eps: float):
    """Wang et al. 2022, decoder alone: LayerNorm(alpha u + delta), alpha = (2 M)^(1/4), without gain and bias."""
    alpha = (2 * blocks) ** (1 / 4)
    y = [alpha * x + d for x, d in zip(u, delta)]
    mean = sum(y) / len(y)
    spread = math.sqrt(sum((v - mean) ** 2 for v in y) / len(y) + eps)
    return [(v - mean) / spread for v in y]


def seed_spin(u, delta, carry, *, alpha, tau, beta):
    """One token through the published formula; same results as `left_spin`."""
    d = norm(delta) / (1e-8 + norm(u))
    a = 0.0
    if carry is not None:
        a = norm([x - y for x, y in zip(delta, carry[0])]) / (1e-8 + norm(delta) + norm(carry[0]))
    s = d + 0.5 * a
    phi = alpha * math.log(1 + math.exp(s - tau))
    if carry is not None:
        phi = (1 - beta) * carry[1] + beta * phi
    g = 1 / math.sqrt(1 + phi * phi)
    step = [g * v for v in delta]
    return [x + y for x, y in zip(u, step)], step, phi, s, g


def norm(x: list[float]) -> float:
    return math.sqrt(sum(v * v for v in x))


def unit(x: list[float]) -> list[float]:
    return [v / norm(x) for v in x]


def dot(x: list[float], y: list[float]) -> float:
    return sum(a * b for a, b in zip(x, y))


class Memory:
    """Ring entries and centroids as dicts (None = free): n, s, age, life, count."""

    def __init__(self, ring=32, centroids=16, short=8.0, mid=64.0, match=0.9, near=0.7, top=4):
        self.ring, self.centroids = [None] * ring, [None] * centroids
        self.short, self.mid, self.match, self.near, self.top = short, mid, match, near, top

    def danger(self, delta: list[float]) -> float:
        worst = 0.0
        for entry in self.live(self.ring + self.centroids):
            cosine = dot(unit(delta), entry["n"])
            fade = 2 ** (-entry["age"] / entry["life"])
            worst = max(worst, entry["s"] * max(cosine - self.near, 0) / (1 - self.near) * fade)
        return min(worst, 1.0)

    def update(self, spikes: list[tuple[list[float], float]]) -> None:
        for entry in self.live(self.ring + self.centroids):
            entry["age"] += 1
        good = [(n, s) for n, s in spikes if s > 0 and all(math.isfinite(v) for v in [*n, s]) and norm(n) > 0]
        for n, s in sorted(good, key=lambda spike: -spike[1])[: self.top]:
            self.add(unit(n), s)

    def add(self, n: list[float], s: float) -> None:
        entry = self.nearest(n, self.ring + self.centroids)
        if entry is None:
            fresh = {"n": n, "s": s, "age": 0, "life": self.short, "count": 1}
            self.ring[self.most_faded()] = fresh
            return
        entry["s"] = max(entry["s"], s)
        if entry["age"] == 0:
            return
        entry["age"] = 0
        if entry["life"] == math.inf:
            entry["n"] = unit([entry["count"] * x + y for x, y in zip(entry["n"], n)])
            entry["count"] += 1
        elif entry["count"] == 1:
            entry["life"], entry["count"] = self.mid, 2
        else:
            self.ring[[e is entry for e in self.ring].index(True)] = None
            self.promote(unit([2 * x + y for x, y in zip(entry["n"], n)]), entry["s"])

    def promote(self, n: list[float], s: float) -> None:
        there = self.nearest(n, self.centroids)
        if there is None:
            places = [(e is not None, -(e["age"] if e else 0), e["s"] if e else 0) for e in self.centroids]
            place = places.index(min(places))
            self.centroids[place] = {"n": n, "s": s, "age": 0, "life": math.inf, "count": 3}
        else:
            there["n"] = unit([there["count"] * x + 3 * y for x, y in zip(there["n"], n)])
            there.update(s=max(s, there["s"]), age=0, count=there["count"] + 3)

    def nearest(self, n, entries):
        best = max(self.live(entries), key=lambda entry: dot(n, entry["n"]), default=None)
        return best if best is not None and dot(n, best["n"]) >= self.match else None

    def most_faded(self) -> int:
        left = [0.0 if e is None else e["s"] * 2 ** (-e["age"] / e["life"]) for e in self.ring]
        return left.index(min(left))

    @staticmethod
    def live(entries):
        return [entry for entry in entries if entry is not None]
