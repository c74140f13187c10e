"""A short fine-tuning at the new length: the same tokens for every method.

Legend: T tokens of a long row, L trained length, R rows.

Three of ten rows are T / L documents of the base's own corpus behind each other; of the others, half are plain text
and half a question over T tokens. A method with mixed windows reads the short documents apart, each from position 0,
so that a rule with two regimes rotates them by the short one; every other method reads them as one row of T.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from aptlab.evals.scoring.lengths import make_autocast
from aptlab.models import Decoder
from aptlab.nn.positions.rope import Rope
from corpus import SEED, document, tokenizer

RATE, WARMUP = 2e-4, 0.2
MICRO = 32_768  # tokens of a micro-batch, at least one row


@cache
def rows(target: int, context: int, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens [R, T] and whether a row is short documents [R]."""
    chance, own_seed = random.Random(f"extension {target} {seed}"), SEED + 10_000 + seed
    tokens, short = np.empty((count, target), dtype=np.int64), np.zeros(count, dtype=bool)
    eos = [tokenizer().eos]
    for row in range(count):
        short[row] = row % 10 in (0, 3, 6)
        length = context if short[row] else target
        parts = (document(length - 1, chance, row + part, own_seed) + eos for part in range(target // length))
        tokens[row] = [token for part in parts for token in part]
    return tokens, short


def fine_tune(
    net: Decoder,
    rule: Rope,
    *,
    target: int,
    context: int,
    steps: int,
    tokens_per_step: int,
    mixed: bool,
    seed: int,
    device: torch.device,
    precision: str,
) -> Decoder:
    """A trained copy of `net` that rotates by `rule`; `net` stays as it is."""
    net = copy.deepcopy(net).to(device).train()
    net.swap_rope(rule)
    each = max(1, tokens_per_step // target)
    tokens, short = rows(target, context, steps * each, seed)
    optimizer = torch.optim.AdamW(net.parameters(), lr=RATE, betas=(0.9, 0.95), weight_decay=0.0)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / (WARMUP * steps))
        mine = slice(step * each, (step + 1) * each)
        optimizer.zero_grad()
        for part in pieces(torch.from_numpy(tokens[mine]), short[mine], context if mixed else target):
            part = part.to(device)
            with make_autocast(device, precision):
                logits = net(part[:, :-1]).logits
            loss = F.cross_entropy(logits.float().flatten(0, 1), part[:, 1:].flatten(), reduction="sum")
            (loss / (each * target)).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
    return net.eval()


def pieces(tokens_RT: Tensor, short: np.ndarray, window: int) -> Iterator[Tensor]:
    """Micro-batches: long rows as they are, short ones in windows."""
    for chosen, length in ((~short, tokens_RT.shape[1]), (short, window)):
        picked = tokens_RT[torch.from_numpy(chosen)].reshape(-1, length)
        if len(picked):
            yield from picked.split(max(1, MICRO // length))
