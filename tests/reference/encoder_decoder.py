"""An encoder-decoder and its beam search in float64 with loops. Nothing of aptlab is imported.

`weights` is a dict of arrays by the names of the trained model.
"""

import itertools
import math

import numpy as np

from tests.reference.attention import attend
from tests.reference.ffn import linear, swiglu
from tests.reference.norm import rms_norm
from tests.reference.rope import rotate

EPS = 1e-5


def encoder_decoder(weights, source, target, *, depth, heads, kv_heads, head_dim, theta):
    """Logits [T, V] of one target beside one source (Vaswani et al. 2017, arXiv:1706.03762, sections 3.1 and 3.2.3),
    pre-norm with SwiGLU; self-attention is rotated by theta radians a token, cross attention is not.
    """
    sizes = (heads, kv_heads, head_dim)
    states = _embed(weights, source)
    for layer in range(depth):
        block = _block(weights, f"encoder.blocks.{layer}.")
        states = _self_attention(block, "encoder_attention", states, sizes, theta, lambda m, n: True)
        states = _ffn(block, "encoder_ffn", states)
    states = _normed(states, weights["encoder.norm.weight"])
    x = _embed(weights, target)
    for layer in range(depth):
        block = _block(weights, f"decoder.blocks.{layer}.")
        x = _self_attention(block, "attention", x, sizes, theta, lambda m, n: n <= m)
        x = _cross_attention(block, x, states, sizes)
        x = _ffn(block, "ffn", x)
    x = _normed(x, weights["decoder.norm.weight"])
    return np.stack([linear(row, weights["head.weight"]) for row in x])


def _embed(weights, tokens):
    return np.stack([np.asarray(weights["embed.weight"][t], dtype=np.float64) for t in tokens])


def _block(weights, prefix):
    return {name[len(prefix) :]: weight for name, weight in weights.items() if name.startswith(prefix)}


def _normed(rows, weight):
    return np.stack([rms_norm(row, weight, EPS) for row in rows])


def _self_attention(block, site, x, sizes, theta, sees):
    heads, kv_heads, head_dim = sizes
    rows = _normed(x, block[f"{site}_norm.weight"])
    joined = np.stack([linear(row, block[f"{site}.qkv.weight"]) for row in rows])
    ends = np.cumsum([heads * head_dim, kv_heads * head_dim])
    q, k, v = (part.reshape(len(rows), -1, head_dim) for part in np.split(joined, ends, axis=1))
    q, k = (np.stack([[rotate(head, m, theta) for head in row] for m, row in enumerate(part)]) for part in (q, k))
    out = attend(q, k, v, 1 / math.sqrt(head_dim), sees).reshape(len(rows), -1)
    return x + np.stack([linear(row, block[f"{site}.out.weight"]) for row in out])


def _cross_attention(block, x, states, sizes):
    heads, kv_heads, head_dim = sizes
    q = np.stack([linear(row, block["cross.q.weight"]) for row in _normed(x, block["cross_norm.weight"])])
    kv = np.stack([linear(row, block["cross.kv.weight"]) for row in states])
    k, v = (part.reshape(len(states), kv_heads, head_dim) for part in np.split(kv, 2, axis=1))
    out = attend(q.reshape(len(x), heads, head_dim), k, v, 1 / math.sqrt(head_dim), lambda m, n: True)
    return x + np.stack([linear(row, block["cross.out.weight"]) for row in out.reshape(len(x), -1)])


def _ffn(block, site, x):
    gate, up = np.split(block[f"{site}.gate_up.weight"], 2, axis=0)
    rows = _normed(x, block[f"{site}_norm.weight"])
    return x + np.stack([swiglu(row, gate, up, block[f"{site}.down.weight"], None, None, None) for row in rows])


def best_targets(next_log_probabilities, *, vocab, ends, longest, penalty):
    """(worth, tokens) of all targets of at most `longest` tokens by enumeration, best first: ln p / tokens^penalty with
    the end counted; those that have not ended at `longest` count as they are.

    next_log_probabilities(tokens) gives ln p of every next token.
    """
    found = []
    for size in range(longest + 1):
        for tokens in itertools.product([t for t in range(vocab) if t not in ends], repeat=size):
            steps = [next_log_probabilities(tokens[:at])[token] for at, token in enumerate(tokens)]
            total = sum(steps)
            if size == longest:
                found.append((total / size**penalty, list(tokens)))
                continue
            last = next_log_probabilities(tokens)
            found += [((total + last[end]) / (size + 1) ** penalty, list(tokens)) for end in ends]
    return sorted(found, key=lambda pair: -pair[0])


def corrupt(tokens, kept, noise, sentinel, eos):
    """Source and target of T5's span corruption, token by token: kept[i] tokens, then noise[i] that are taken out."""
    source, target, at = [], [], 0
    for number, (keep, take) in enumerate(zip(kept, noise)):
        for _ in range(keep):
            source.append(tokens[at])
            at += 1
        source.append(sentinel + number)
        target.append(sentinel + number)
        for _ in range(take):
            target.append(tokens[at])
            at += 1
    assert at == len(tokens)
    return [*source, eos], [*target, eos]
