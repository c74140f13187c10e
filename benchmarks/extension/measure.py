"""What one network is worth at one length: perplexity by length, pass key, RULER's tasks.

Legend: B rows, T tokens, A answer tokens.

An answer counts as found when each of its tokens is the likeliest after the right ones before it. For one answer that
is what greedy decoding would write; for several it forgives an earlier mistake, which decoding does not. It costs one
forward pass, so that all methods, lengths and seeds can be measured; `aptlab eval eval=ruler` decodes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from aptlab.data.rows.windows import Windows
from aptlab.evals.scoring.lengths import evaluate_windows, make_autocast
from aptlab.evals.tasks.ruler import build_ruler_tasks
from aptlab.evals.tasks.sample import TaskSample
from aptlab.models import Decoder
from corpus import maker, text_data, tokenizer

TASKS = tuple(build_ruler_tasks("text"))
BATCH = 65_536  # tokens read side by side
SEED = 0


def samples(name: str, length: int, count: int) -> list[TaskSample]:
    """Questions over validation text, spread over all depths where the task has one."""
    spread = [index / max(count - 1, 1) if name == "passkey" else None for index in range(count)]
    return [maker(name, length, SEED, "val").make(index, depth) for index, depth in enumerate(spread)]


def found(
    net: Decoder, samples: Sequence[TaskSample], *, length: int, device: torch.device, precision: str
) -> list[float]:
    """For each sample the share of its answers that are found; RULER's "part" tasks have one answer here."""
    shares = []
    for first in range(0, len(samples), each := max(1, BATCH // length)):
        batch = samples[first : first + each]
        rows = [[*sample.tokens, *sample.answer] for sample in batch]
        filled = [row + [0] * (max(map(len, rows)) - len(row)) for row in rows]  # behind the answer nothing is read
        with torch.inference_mode(), make_autocast(device, precision):
            guess_BT = net(torch.tensor(filled, device=device)).logits.argmax(-1).cpu()
        for sample, guess in zip(batch, guess_BT.tolist()):
            start = len(sample.tokens)
            right = [guess[start - 1 + i] == token for i, token in enumerate(sample.answer)]
            shares.append(share(sample, right))
    return shares


def share(sample: TaskSample, right: Sequence[bool]) -> float:
    """Answers whose tokens (bytes) are all right."""
    text, at, hits = tokenizer().decode(list(sample.answer)), 0, []
    for answer in sample.answers if sample.match == "all" else [text.strip()]:
        at = text.index(answer, at)
        hits.append(all(right[at : at + len(answer)]))
    return sum(hits) / len(hits)


def perplexities(
    net: Decoder, *, context: int, factor: int, tokens: int, device: torch.device, precision: str
) -> dict[int, float]:
    """Perplexity per byte of the same validation bytes at context, 2 context … factor · context."""
    multiples = [2**n for n in range(int(math.log2(factor)) + 1)]
    windows = Windows(text_data().store.val, context=context, multiples=multiples, tokens=tokens)
    rows = evaluate_windows(net, windows, device=device, precision=precision).rows
    return {row["length"]: row["ppl"] for row in rows}


def scores(
    net: Decoder, *, length: int, passkeys: int, each: int, device: torch.device, precision: str
) -> dict[str, float]:
    """Mean share of answers found: the pass key and each of the 13 tasks."""
    where = {"length": length, "device": device, "precision": precision}
    counts = {"passkey": passkeys, **dict.fromkeys(TASKS, each)}
    result = {}
    for name, count in counts.items():
        shares = found(net, samples(name, length, count), **where)
        result[name] = sum(shares) / len(shares)
    return result
