"""What a model costs: parameters and floating-point operations, by formula."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from aptlab.models.decoder import Decoder


@dataclass(frozen=True)
class Cost:
    """Sizes of a model.

    parameters  all trainable numbers, a tied head counted once
    matmul      those that multiply an activation (all matrices but the embedding look-up)
    forward     FLOPs per token of a forward pass at the given context
    training    FLOPs per token of a training step: forward, and twice that backward
    """

    parameters: int
    matmul: int
    forward: int
    training: int


def cost(net: Decoder, context: int) -> Cost:
    """2 FLOPs per matrix weight, and 4 · D · heads per seen key and layer; a causal token sees (context + 1) / 2 keys.

    Kaplan et al. 2020 (arXiv:2001.08361, table 1), with attention counted causally.
    """
    parameters = sum(weight.numel() for weight in net.parameters())
    matmul = sum(module.weight.numel() for module in net.modules() if isinstance(module, nn.Linear))
    heads, _, head_dim = net.shape.head_sizes()
    attention = 4 * heads * head_dim * net.shape.depth * (context + 1) // 2
    forward = 2 * matmul + attention
    return Cost(parameters=parameters, matmul=matmul, forward=forward, training=3 * forward)


def by_part(net: Decoder) -> list[tuple[str, int]]:
    """Parameters of each part of the model, largest idea first: embedding, one block's parts, norm, head."""
    block = net.blocks[0]
    rows = [("embedding", net.embed)]
    rows += [(f"{net.shape.depth} x {name}", module) for name, module in block.named_children()]
    rows += [("norm", net.norm)]
    counts = []
    for name, module in rows:
        size = sum(weight.numel() for weight in module.parameters())
        counts.append((name, size * (net.shape.depth if name.startswith(f"{net.shape.depth} x ") else 1)))
    counts.append(("head (tied)" if net.tied else "head", 0 if net.tied else net.head.weight.numel()))
    return [(name, size) for name, size in counts if size or name.startswith("head")]
