"""DyTox: its block and its objective, written from the paper with plain loops. Imports nothing of aptlab."""

from __future__ import annotations

import math


def multiply(matrix, vector, bias=None):
    """Rows of `matrix` times a vector."""
    found = [sum(w * value for w, value in zip(row, vector)) for row in matrix]
    return found if bias is None else [value + b for value, b in zip(found, bias)]


def rms_norm(vector, weight, eps):
    scale = 1 / math.sqrt(sum(value * value for value in vector) / len(vector) + eps)
    return [value * scale * w for value, w in zip(vector, weight)]


def swiglu(vector, gate, up, down):
    gates, ups = multiply(gate, vector), multiply(up, vector)
    return multiply(down, [g / (1 + math.exp(-g)) * u for g, u in zip(gates, ups)])


def task_attention(token, patches, weights, heads, eps):
    """Douillard et al. 2022 (arXiv:2111.11326): the token alone asks, and reads itself and all patches.

    `weights` has norm, q, k, v, out, bias, ffn_norm, gate, up, down as nested lists.
    """
    stream = [rms_norm(vector, weights["norm"], eps) for vector in [token, *patches]]
    q = multiply(weights["q"], stream[0])
    keys = [multiply(weights["k"], z) for z in stream]
    values = [multiply(weights["v"], z) for z in stream]
    size, read = len(q) // heads, []
    for head in range(heads):
        part = range(head * size, (head + 1) * size)
        scores = [sum(q[d] * k[d] for d in part) / math.sqrt(size) for k in keys]
        top = max(scores)
        powers = [math.exp(score - top) for score in scores]
        read += [sum(p * v[d] for p, v in zip(powers, values)) / sum(powers) for d in part]
    joined = [t + o for t, o in zip(token, multiply(weights["out"], read, weights["bias"]))]
    fed = swiglu(rms_norm(joined, weights["ffn_norm"], eps), weights["gate"], weights["up"], weights["down"])
    return [j + f for j, f in zip(joined, fed)]


def token_attention(patches, tokens, weights, heads):
    """The seeds' task: patches and tokens read each other, the tokens are dropped, and the mean of the rest is told.

    `weights` has q, k, v, out and the biases q_bias, k_bias, v_bias, out_bias as nested lists.
    """
    stream = [*patches, *tokens]
    q, k, v = ([multiply(weights[name], z, weights[f"{name}_bias"]) for z in stream] for name in "qkv")
    size, sequence = len(q[0]) // heads, []
    for place in range(len(patches)):
        read = []
        for head in range(heads):
            part = range(head * size, (head + 1) * size)
            p = softmax([sum(q[place][d] * other[d] for d in part) / math.sqrt(size) for other in k])
            read += [sum(share * value[d] for share, value in zip(p, v)) for d in part]
        sequence.append(multiply(weights["out"], read, weights["out_bias"]))
    return [sum(column) / len(patches) for column in zip(*sequence)]


def softmax(values, temperature=1.0):
    top = max(values)
    powers = [math.exp((value - top) / temperature) for value in values]
    return [power / sum(powers) for power in powers]


def binary_cross_entropy(logits, label):
    """The mean over classes of -ln of the probability that each is, or is not, the right one."""
    sigmoids = [1 / (1 + math.exp(-z)) for z in logits]
    return -sum(math.log(s if k == label else 1 - s) for k, s in enumerate(sigmoids)) / len(logits)


def dytox(logits, teacher, divergence, labels, older, temperature, weight, kind):
    """`labels` are places among the known classes, the first `older` of which are older ones."""
    rows = len(labels)

    def compare(row, label):
        return binary_cross_entropy(row, label) if kind == "bce" else -math.log(softmax(row)[label])

    new = sum(compare(row, label) for row, label in zip(logits, labels)) / rows
    kept = 0.0
    for now, before in zip(logits, teacher):
        p, goal = softmax(now[:older], temperature), softmax(before, temperature)
        kept += temperature**2 * sum(g * math.log(g / q) for g, q in zip(goal, p)) / (rows * older)
    apart = sum(compare(row, max(0, label - older + 1)) for row, label in zip(divergence, labels)) / rows
    share = older / len(logits[0])
    return (1 - share) * new + share * kept + weight * apart
