"""Loss at several lengths of context, and by position. Legend: B windows, T tokens, L tokens of a window."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import torch
from torch import Tensor

from aptlab.models import Decoder
from aptlab.objectives import IGNORE, compute_perplexity, compute_token_nll

BUCKETS = 16
LOGITS = 2**26  # logits held at once: 256 MiB in float32
TOKENS = {"cpu": 4096}  # tokens of a batch; on other devices ELSEWHERE
ELSEWHERE = 32_768
AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


class EvalWindows(Protocol):
    """What the data module gives: the same target tokens, cut into windows of `multiple` contexts."""

    context: int
    multiples: tuple[int, ...]
    meta: dict[str, Any]

    def batches(self, multiple: int, *, tokens: int) -> Iterable[Mapping[str, Tensor]]: ...


@dataclass(frozen=True)
class LengthResults:
    """rows: multiple, length, loss (nats per token), ppl, bpb (bits per byte), tokens, one row per multiple.

    positions: of the longest windows, 16 buckets that grow like a logarithm: position (of the bucket's last token,
    counted from 1, which is also the context it has), loss, tokens.
    """

    rows: list[dict[str, Any]]
    positions: list[dict[str, Any]]


def evaluate_lengths(
    net: Decoder,
    windows: EvalWindows,
    *,
    device: torch.device | str = "cpu",
    precision: str = "32-true",
    bytes_per_token: float | None = None,
    prefix: Sequence[int] = (),
) -> list[dict[str, Any]]:
    """The rows of `evaluate_windows`, as result.json holds them."""
    return evaluate_windows(
        net, windows, device=device, precision=precision, bytes_per_token=bytes_per_token, prefix=prefix
    ).rows


def evaluate_windows(
    net: Decoder,
    windows: EvalWindows,
    *,
    device: torch.device | str = "cpu",
    precision: str = "32-true",
    bytes_per_token: float | None = None,
    progress: Callable[[int], None] | None = None,
    prefix: Sequence[int] = (),
) -> LengthResults:
    """Mean loss over all targets, every target counting once, summed in float64.

    `precision` is Lightning's name: the mixed ones run under autocast, the others compute in the weights' own type.
    `bytes_per_token` None takes that of the windows' own text. `progress` is told each multiple before it is read.
    `prefix`: ids that every text of the tokenizer begins with; see `put_prefix`.
    A window whose logits would not fit in memory is read in pieces through the cache, with the same result.
    """
    device = torch.device(device)
    rate = bytes_per_token or windows.meta["bytes_per_token"]
    rows, nats_L, count_L = [], torch.zeros(0), torch.zeros(0)
    mode = net.training
    net.to(device).eval()
    try:
        with torch.inference_mode(), make_autocast(device, precision):
            for multiple in sorted(windows.multiples):
                if progress is not None:
                    progress(multiple)
                nats_L, count_L = sum_position_losses(net, windows, multiple, device, prefix)
                total = float(nats_L.sum()), int(count_L.sum())
                rows.append(make_length_row(multiple, multiple * windows.context, *total, rate))
    finally:
        net.train(mode)
    return LengthResults(rows, bucket_losses(nats_L, count_L))


def make_autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """What Lightning's precision of this name does around a forward pass."""
    if precision not in AUTOCAST:
        return nullcontext()
    return torch.autocast(device.type, dtype=AUTOCAST[precision])


def sum_position_losses(
    net: Decoder, windows: EvalWindows, multiple: int, device: torch.device, prefix: Sequence[int] = ()
) -> tuple[Tensor, Tensor]:
    """Sum of losses and number of targets at every position of a window, float64 [L] on the CPU."""
    length = multiple * windows.context
    piece = max(1, LOGITS // net.vocab)
    sums_2L = torch.zeros(2, length, dtype=torch.float64, device=device)
    budget = min(piece, TOKENS.get(device.type, ELSEWHERE))
    for batch in windows.batches(multiple, tokens=budget):
        tokens_BL, targets_BL = (batch[name].to(device, non_blocking=True) for name in ("tokens", "targets"))
        tokens_BL = put_prefix(tokens_BL, prefix)
        sums_2L[0] += compute_token_losses(net, tokens_BL, targets_BL, piece=piece).sum(0)
        sums_2L[1] += (targets_BL != IGNORE).sum(0)
    nats_L, count_L = sums_2L.cpu()
    return nats_L, count_L


def put_prefix(tokens_BL: Tensor, prefix: Sequence[int]) -> Tensor:
    """Windows of a text with `prefix` (`<s>`) in place of their first tokens, which are no targets in them.

    A model whose tokenizer begins every text with such a token has seen no text without it. A window keeps its length
    and all its targets, as in the perplexity of llama.cpp.
    """
    if not prefix:
        return tokens_BL
    tokens_BL = tokens_BL.clone()
    tokens_BL[:, : len(prefix)] = torch.tensor(prefix, device=tokens_BL.device)
    return tokens_BL


def compute_token_losses(net: Decoder, tokens_BL: Tensor, targets_BL: Tensor, *, piece: int) -> Tensor:
    """-ln p(target) of every token, float64 [B, L], 0 where ignored; at most `piece` tokens have logits at once."""
    rows, length = tokens_BL.shape
    step = max(1, piece // rows)
    cache = net.new_cache(rows, length) if step < length else None
    parts = []
    for tokens_BT, targets_BT in zip(tokens_BL.split(step, 1), targets_BL.split(step, 1), strict=True):
        parts.append(compute_token_nll(net(tokens_BT, cache=cache).logits, targets_BT, "none").double())
    return torch.cat(parts, dim=1)


def make_length_row(multiple: int, length: int, nats: float, count: int, bytes_per_token: float) -> dict[str, Any]:
    """One entry of `lengths`; perplexity is inf where it is larger than a float."""
    loss = nats / count if count else math.nan
    return {
        "multiple": multiple,
        "length": length,
        "loss": loss,
        "ppl": compute_perplexity(loss),
        "bpb": loss / math.log(2) / bytes_per_token,
        "tokens": count,
    }


def bucket_losses(nats_L: Tensor, count_L: Tensor, buckets: int = BUCKETS) -> list[dict[str, Any]]:
    """Mean loss in buckets (L^((i-1)/n), L^(i/n)] of the position, counted from 1; empty buckets are left out."""
    length = len(nats_L)
    ends = sorted({0, *(round(length ** (i / buckets)) for i in range(1, buckets + 1))})
    rows = []
    for first, last in pairwise(ends):
        count = int(count_L[first:last].sum())
        if count:
            rows.append({"position": last, "loss": float(nats_L[first:last].sum()) / count, "tokens": count})
    return rows
