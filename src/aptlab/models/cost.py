"""What a model costs: parameters and floating-point operations, by formula."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from aptlab.models.decoder import Decoder
from aptlab.models.encoder_decoder import EncoderDecoder
from aptlab.nn.attention import CrossAttention
from aptlab.nn.layer import Layer
from aptlab.nn.width import FULL, Width


@dataclass(frozen=True)
class ModelCost:
    """Sizes of a model.

    parameters  all of them, frozen ones too, a tied head counted once
    matmul      those that multiply an activation (all matrices but the embedding look-up)
    forward     FLOPs per token of a forward pass at the given context
    training    FLOPs per token of a training step: forward, and twice that backward
    """

    parameters: int
    matmul: int
    forward: int
    training: int


def estimate_cost(net: Decoder, context: int, width: Width | None = None) -> ModelCost:
    """2 FLOPs per matrix weight, and what each layer says it takes beside them (`count_flops`).

    Kaplan et al. 2020 (arXiv:2001.08361, table 1), with pairs counted that a layer sees: softmax attention takes
    4 · D · heads per seen key, (context + 1) / 2 of them in a causal layer without window or blocks; linear attention
    takes a number that does not grow with the context. Matrices that a token does not pass (experts that are not
    chosen) are taken off (`skip_flops`). A bias that multiplies matrices is counted (CoPE). Left out, as there: norms,
    rotation, softmax, and what a bias adds.

    width  of nested layers, as in `Decoder.hidden`: the cost of that slice alone, linear in it. ConfigError for one
           that a block does not have
    """
    parameters = sum(weight.numel() for weight in net.parameters())
    matmul = sum(module.weight.numel() for module in net.modules() if isinstance(module, nn.Linear))
    layers = [layer for block in net.each_block() for _, layer in block.layers()]
    if width is not None:
        nested = list(list_nested_layers(net, net.check_width(width)))
        parameters -= sum(layer.skip_width_parameters(one) for layer, one in nested)
        matmul -= round(sum(layer.skip_width_flops(one) for layer, one in nested) / 2)
    beside = sum(layer.count_flops(context) - layer.skip_flops() for layer in layers)
    forward = 2 * matmul + round(beside)
    return ModelCost(parameters=parameters, matmul=matmul, forward=forward, training=3 * forward)


def list_nested_layers(net: Decoder, widths: Sequence[float]) -> Iterator[tuple[Layer, float]]:
    """(layer, its width) of every layer that has several widths, for one width a block."""
    for block, width in zip(net.each_block(), widths, strict=True):
        yield from ((layer, width) for _, layer in block.layers() if len(layer.widths) > 1)


def count_nested_flops(net: Decoder) -> float:
    """FLOPs per token of the matrices of nested layers, at full width."""
    return sum(
        2.0 * sum(part.weight.numel() for part in layer.modules() if isinstance(part, nn.Linear))
        for layer, _ in list_nested_layers(net, (FULL,) * net.shape.depth)
    )


def count_part_parameters(net: Decoder) -> list[tuple[str, int]]:
    """Parameters of each part of the model, every one once; parts without any are left out, but for the head.

    The embedding, what knows positions, the parts of all blocks together, norm, head, and anything else.
    """
    rows: dict[str, list[Any]] = {"embedding": [net.embed], "positions": [net.embed_positions]}
    rows |= {"rope": [net.rotaries], "bias": [net.biases]}
    for block in net.blocks:
        for name, module in block.named_children():
            rows.setdefault(f"{net.shape.depth} x {name}", []).append(module)
    rows |= {"norm": [net.norm], "head (tied)" if net.tied else "head": [net.head], "other": [net]}
    return count_rows(rows)


def count_rows(rows: Mapping[str, Sequence[Any]]) -> list[tuple[str, int]]:
    """Parameters of each row that no earlier row has; rows without any are left out, but for the head."""
    counted: set[int] = set()
    counts = []
    for name, modules in rows.items():
        weights = [weight for module in modules if module is not None for weight in module.parameters()]
        mine = {id(weight): weight.numel() for weight in weights if id(weight) not in counted}
        counted |= mine.keys()
        counts.append((name, sum(mine.values())))
    return [(name, size) for name, size in counts if size or name.startswith("head")]


def estimate_pair_flops(net: EncoderDecoder, source: int, target: int) -> int:
    """FLOPs of a forward pass over one source and one target, of so many tokens, as `estimate_cost` counts them.

    The encoder's matrices and the keys of cross attention multiply the source, everything else the target. A token of
    the encoder sees twice the keys of one that sees earlier ones alone.
    """
    encoder = 2.0 * count_matrix_weights(net.encoder)
    encoder += sum(2 * layer.count_flops(source) for block in net.encoder.each_block() for _, layer in block.layers())
    layers = [layer for block in net.each_block() for _, layer in block.layers()]
    readers = [layer for layer in layers if isinstance(layer, CrossAttention)]
    keys = 2.0 * sum(layer.kv.weight.numel() for layer in readers)
    decoder = 2.0 * (count_matrix_weights(net.decoder) + net.head.weight.numel()) - keys
    decoder += sum(layer.count_flops(source if layer in readers else target) for layer in layers)
    return round(source * (encoder + keys) + target * decoder)


def count_matrix_weights(module: nn.Module) -> int:
    """Weights that multiply an activation."""
    return sum(part.weight.numel() for part in module.modules() if isinstance(part, nn.Linear))


def count_pair_parameters(net: EncoderDecoder) -> list[tuple[str, int]]:
    """Parameters of each part of an encoder-decoder, every one once, as `count_part_parameters`."""
    rows: dict[str, list[Any]] = {"embedding": [net.embed], "positions": [net.embed_positions]}
    rows |= {"rope": [net.rotaries], "bias": [net.encoder_biases, net.biases]}
    for stack in (net.encoder, net.decoder):
        for block in stack.each_block():
            for name, module in block.named_children():
                rows.setdefault(f"{net.shape.depth} x {name}", []).append(module)
    rows |= {"norm": [net.encoder.norm, net.decoder.norm], "head (tied)" if net.tied else "head": [net.head]}
    return count_rows({**rows, "other": [net]})
