"""Loss of several widths of one network on the same text, and how often they agree with the whole one.

Legend: B windows, T tokens, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from aptlab.evals.scoring.lengths import ELSEWHERE, LOGITS, TOKENS, EvalWindows, make_autocast, put_prefix
from aptlab.models import Decoder
from aptlab.models.cost import count_nested_flops, estimate_cost
from aptlab.nn.width import FULL, Width
from aptlab.objectives import IGNORE, compute_perplexity, compute_token_nll


def score_widths(
    net: Decoder,
    windows: EvalWindows,
    widths: Sequence[Width],
    *,
    device: torch.device | str = "cpu",
    precision: str = "32-true",
    prefix: Sequence[int] = (),
    progress: Callable[[int], None] | None = None,
) -> list[dict[str, Any]]:
    """A row for each width: loss, and the share of targets at which its likeliest token is the whole network's.

    Every width reads the same windows of one context. `net` is in eval mode on `device`; `progress` is told
    the tokens of each batch.
    """
    device = torch.device(device)
    sums_W3 = torch.zeros(len(widths), 3, dtype=torch.float64)
    budget = min(max(1, LOGITS // net.vocab), TOKENS.get(device.type, ELSEWHERE))
    with torch.inference_mode(), make_autocast(device, precision):
        for batch in windows.batches(1, tokens=budget):
            tokens_BT, targets_BT = (batch[name].to(device, non_blocking=True) for name in ("tokens", "targets"))
            tokens_BT = put_prefix(tokens_BT, prefix)
            whole_BT = net(tokens_BT).logits.argmax(-1)
            for row, width in enumerate(widths):
                logits_BTV = net(tokens_BT, width=width).logits
                sums_W3[row] += sum_batch(logits_BTV, targets_BT, whole_BT)
            if progress is not None:
                progress(tokens_BT.numel())
    rate = windows.meta["bytes_per_token"]
    return [
        make_width_row(net, width, windows.context, sums.tolist(), rate)
        for width, sums in zip(widths, sums_W3, strict=True)
    ]


def sum_batch(logits_BTV: Tensor, targets_BT: Tensor, whole_BT: Tensor) -> Tensor:
    """Nats, targets, and targets at which the likeliest token is that of the whole network, float64 [3]."""
    counted_BT = targets_BT != IGNORE
    same = ((logits_BTV.argmax(-1) == whole_BT) & counted_BT).sum()
    nats = compute_token_nll(logits_BTV, targets_BT, "none").double().sum()
    return torch.stack((nats, counted_BT.sum().double(), same.double())).cpu()


def make_width_row(
    net: Decoder, width: Width, context: int, sums: Sequence[float], bytes_per_token: float
) -> dict[str, Any]:
    """What a width costs by formula, and what was measured of it."""
    nats, count, same = sums
    price, whole = (estimate_cost(net, context, one) for one in (width, FULL))
    loss = nats / count if count else math.nan
    return {
        "width": width if isinstance(width, int | float) else list(width),
        "parameters": price.parameters,
        "forward_flops": price.forward,
        "ffn_flops": count_nested_flops(net) - (whole.forward - price.forward),
        "loss": loss,
        "ppl": compute_perplexity(loss),
        "bpb": loss / math.log(2) / bytes_per_token,
        "agreement": same / count if count else math.nan,
        "tokens": int(count),
    }
