"""Perplexity with a sliding window. Legend: B windows, L tokens of a window, S stride."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from aptlab.evals.scoring.lengths import ELSEWHERE, LOGITS, TOKENS, compute_token_losses, make_autocast, put_prefix
from aptlab.models import Decoder
from aptlab.objectives import IGNORE, compute_perplexity


@dataclass(frozen=True)
class ScoredWindow:
    """Targets [first, last) of a segment, predicted from those of [start, last)."""

    start: int
    first: int
    last: int


def iterate_windows(targets: int, length: int, stride: int) -> Iterator[ScoredWindow]:
    """The windows of a segment: every target is counted in exactly one of them.

    The first window counts all its targets, each further one the `stride` that it adds; none is longer than `length`.

    >>> [(one.start, one.first, one.last) for one in iterate_windows(10, 4, 3)]
    [(0, 0, 4), (3, 4, 7), (6, 7, 10)]
    """
    first, last = 0, min(length, targets)
    while first < targets:
        yield ScoredWindow(max(0, last - length), first, last)
        first, last = last, min(last + min(stride, length), targets)


@torch.inference_mode()
def score_segment(
    net: Decoder,
    tokens: Tensor,
    *,
    length: int,
    stride: int,
    device: torch.device | str = "cpu",
    precision: str = "32-true",
    prefix: Sequence[int] = (),
) -> dict[str, Any]:
    """Sums over one segment of n + 1 tokens (n targets): nats, tokens, windows, and the sum of the windows' means.

    Each window starts afresh at position 0 (Press et al. 2022, arXiv:2108.12409, section 2.2, with stride S), so a
    segment costs n/S forward passes of `length` tokens; windows are read side by side, long ones in pieces.
    `prefix`: ids that every text of the tokenizer begins with; see `put_prefix`.
    """
    device = torch.device(device)
    net.to(device).eval()
    tokens = tokens.to(device)
    cut = list(iterate_windows(len(tokens) - 1, length, stride))
    longest = max(window.last - window.start for window in cut)
    rows = max(1, TOKENS.get(device.type, ELSEWHERE) // longest)
    total = {"nats": 0.0, "tokens": 0, "windows": len(cut), "means": 0.0}
    for at in range(0, len(cut), rows):
        block = cut[at : at + rows]
        inputs_BL = torch.zeros(len(block), longest, dtype=torch.long, device=device)
        targets_BL = torch.full_like(inputs_BL, IGNORE)
        for row, window in enumerate(block):
            inputs_BL[row, : window.last - window.start] = tokens[window.start : window.last]
            targets_BL[row, window.first - window.start : window.last - window.start] = tokens[
                window.first + 1 : window.last + 1
            ]
        inputs_BL = put_prefix(inputs_BL, prefix)
        with make_autocast(device, precision):
            nats_B = compute_token_losses(net, inputs_BL, targets_BL, piece=max(1, LOGITS // net.vocab)).sum(1)
        count_B = (targets_BL != IGNORE).sum(1)
        total["nats"] += float(nats_B.sum())
        total["tokens"] += int(count_B.sum())
        total["means"] += float((nats_B / count_B).sum())
    return total


def summarize_segments(length: int, sums: list[dict[str, Any]], bytes_per_token: float) -> dict[str, Any]:
    """One row of the table from the sums of all segments."""
    tokens, count = sum(row["tokens"] for row in sums), sum(row["windows"] for row in sums)
    loss = sum(row["nats"] for row in sums) / tokens
    chunk = sum(row["means"] for row in sums) / count
    return {
        "length": length,
        "loss": loss,
        "ppl": compute_perplexity(loss),
        "bpb": loss / math.log(2) / bytes_per_token,
        "tokens": tokens,
        "windows": count,
        "chunk_loss": chunk,
        "chunk_ppl": compute_perplexity(chunk),
    }
