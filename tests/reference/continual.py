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


def softmax(values, temperature=1.0):
    top = max(values)
    powers = [math.exp((value - top) / temperature) for value in values]
    return [power / sum(powers) for power in powers]


def cross_entropy(logits, targets):
    """Mean of -ln p(target) over rows."""
    return sum(-math.log(softmax(row)[target]) for row, target in zip(logits, targets)) / len(targets)


def der_pp(new, labels_draw, logits_draw, stored, alpha, beta):
    """Eq. 6 of Buzzega et al. 2020: `new` and `labels_draw` are (logits, targets), `logits_draw` the logits now."""
    squares = [(a - b) ** 2 for now, old in zip(logits_draw, stored) for a, b in zip(now, old)]
    return cross_entropy(*new) + alpha * sum(squares) / len(squares) + beta * cross_entropy(*labels_draw)


def lwf(logits, targets, teacher, kept, weight, temperature):
    """Eq. 2-4 of Li & Hoiem 2016, on the logits `kept` of earlier tasks."""
    total = 0.0
    for now, before in zip(logits, teacher):
        p = softmax([now[k] for k in kept], temperature)
        goal = softmax([before[k] for k in kept], temperature)
        total -= sum(b * math.log(a) for a, b in zip(p, goal))
    return cross_entropy(logits, targets) + weight * total / len(logits)


def ewc(loss, weights, anchors, fisher, weight):
    """Eq. 3 of Kirkpatrick et al. 2017."""
    return loss + weight / 2 * sum(f * (w - a) ** 2 for w, a, f in zip(weights, anchors, fisher))


def fisher_of_linear(weight, inputs, targets):
    """The mean over rows of the squared gradient of -ln p(target) for logits W x: dL/dW_kd = (p_k - y_k) x_d."""
    total = [[0.0] * len(weight[0]) for _ in weight]
    for x, target in zip(inputs, targets):
        p = softmax([sum(w * value for w, value in zip(row, x)) for row in weight])
        for k in range(len(weight)):
            for d in range(len(x)):
                total[k][d] += ((p[k] - (k == target)) * x[d]) ** 2 / len(inputs)
    return total
