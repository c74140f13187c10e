"""From positions that were added to the embedding to rotation. Legend: C dim, V vocabulary, N rows of a table."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from aptlab.errors import ConfigError
from aptlab.limits import PositiveInt
from aptlab.models.decoder import Decoder
from aptlab.nn.positions.absolute import LearnedPositions
from aptlab.nn.positions.rope import Rope

ADDED = "embed_positions."  # where a decoder's state dict keeps what embed= learned
FOLDED = ("embed.weight", "head.weight")


def convert_to_rope(net: Decoder, rule: Rope, *, length: PositiveInt | None = None, fold: bool = True) -> Decoder:
    """A copy of a model with added positions (`embed`) that rotates queries and keys by `rule` instead.

    All other weights are kept. The copy reads text without order until it is fine-tuned: the old order is in weights
    that look for it in the stream, and nothing turns them into weights for rotated pairs. What was learned about tokens
    stays; how much of the work that saves is measured in tests/models/test_positions_convert.py.

    fold    add the mean of the added positions to every token's embedding. Layers were trained on E[token] + P[n]; of
            P, the part that is the same for all n says nothing about order, but norms and biases of all layers have
            adapted to it, and sinusoids of long wavelength make it large. With a tied head every logit of a token
            rises by the same number, so probabilities stay. Of all constants it changes what the first
            layer reads least, and nothing where all P[n] are the same; the loss after it is not always the smaller one.
    length  positions 0 .. length - 1 are averaged: those that were trained. None = all rows of a learned table
    """
    added = net.embed_positions
    if added is None:
        raise ConfigError("the model has embed=none: there is nothing to convert; `rope=…` alone changes its rotation")
    mean_C = compute_position_mean(added, length) if fold else None
    out = copy.deepcopy(net)
    out.embed_positions = None
    out.swap_rope(rule)
    out.load_state_dict(strip_positions(net.state_dict(), mean_C, tied=net.tied), strict=False)
    return out


@torch.no_grad()
def compute_position_mean(embed: nn.Module, length: PositiveInt | None = None) -> Tensor:
    """What `embed` adds on average at positions 0 .. length - 1, float32 [C]."""
    rows = embed.length if isinstance(embed, LearnedPositions) else None
    if length is None and rows is None:
        raise ConfigError(
            f"{type(embed).__name__} has no length of its own; say over how many positions to average: the context "
            "that the model was trained with, or do not fold"
        )
    count = min(n for n in (length, rows) if n is not None)
    device = next((x.device for x in (*embed.parameters(), *embed.buffers())), torch.device("cpu"))
    total = torch.zeros((), device=device)
    for begin in range(0, count, 4096):
        positions_1T = torch.arange(begin, min(begin + 4096, count), device=device).unsqueeze(0)
        total = total + embed(positions_1T)[0].double().sum(0)
    return (total / count).float()


def strip_positions(weights: Mapping[str, Tensor], mean_C: Tensor | None = None, *, tied: bool) -> dict[str, Tensor]:
    """A decoder's state dict without added positions, their mean folded into the embedding; see `convert_to_rope`."""
    plain = {name: weight for name, weight in weights.items() if not name.startswith(ADDED)}
    if mean_C is not None:
        for name in FOLDED if tied else FOLDED[:1]:
            if name in plain:
                plain[name] = (plain[name].float() + mean_C.to(plain[name].device)).to(plain[name].dtype)
    return plain
