"""Changes to a decoder that is there: a width of it as a model of its own, and the order of its hidden units.

Legend: F hidden units of a feed-forward, B batch, T tokens.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from aptlab.errors import AptlabError
from aptlab.models.decoder import Decoder
from aptlab.nn.ffn.base import DenseFeedForward
from aptlab.nn.width import Width, count_units


def extract_width(net: Decoder, width: Width, *, share: bool = False) -> Decoder:
    """A width of a nested model as a dense model of its own, which computes the same bits as `net(..., width=width)`.

    width  one number, or one for each block (Mix'n'Match, Devvrit et al. 2023, arXiv:2310.07707, section 3.3); then
           `shape.hidden` has a size for each block
    share  everything but the matrices that are cut stays the very tensors of `net`; else all of it is copied

    ConfigError for a width that a block does not have.
    """
    each = net.check_width(width)
    kept: dict[int, Any] = {id(weight): weight for weight in [*net.parameters(), *net.buffers()]} if share else {}
    out = copy.deepcopy(net, kept)
    for block, one in zip(out.each_block(), each, strict=True):
        block.keep_width(one)
    sizes = [count_units(net.shape.count_hidden(index), one) for index, one in enumerate(each)]
    out.shape = dataclasses.replace(net.shape, hidden=sizes[0] if len(set(sizes)) == 1 else tuple(sizes))
    return out


def list_dense_layers(net: Decoder) -> Iterator[tuple[str, DenseFeedForward]]:
    """(site, layer) of the dense feed-forwards, whose hidden units have an order that means nothing."""
    for block in net.each_block():
        yield from ((site, layer) for site, layer in block.layers() if isinstance(layer, DenseFeedForward))


@torch.no_grad()
def measure_weight_importance(net: Decoder) -> dict[str, Tensor]:
    """Importance [F] of the hidden units of each site: the sum of the absolute weights that belong to a unit.

    Li et al. 2017 (arXiv:1608.08710, section 3.1) for filters; a unit's weights are its rows of the input matrix (of
    gate and value) and its column of the output matrix. Needs no data.
    """
    found = {}
    for site, layer in list_dense_layers(net):
        rows_F = sum(part.abs().sum(-1) for part in layer.input_matrix().weight.float().chunk(layer.parts))
        found[site] = rows_F + layer.down.weight.float().abs().sum(0)
    return found


@torch.no_grad()
def measure_activation_importance(net: Decoder, run: Callable[[], Any]) -> dict[str, Tensor]:
    """Importance [F] of the hidden units of each site: sqrt(mean h²) over all tokens that `run` sends through the net.

    Muralidharan et al. 2024 (Minitron, arXiv:2407.14679, section 2.2) rank neurons by their activations on a few
    batches; here with a root mean square over tokens, and of the product with the value where there is a gate.
    AptlabError where nothing was read.
    """
    sums: dict[str, Tensor] = {}
    counts = dict.fromkeys(dict(list_dense_layers(net)), 0)

    def watch(site: str) -> Callable[..., None]:
        def add(_: Any, given: tuple[Tensor, ...]) -> None:
            hidden = given[0].detach().double().flatten(0, -2)
            sums[site] = sums.get(site, 0) + hidden.square().sum(0)
            counts[site] += len(hidden)

        return add

    hooks = [layer.down.register_forward_pre_hook(watch(site)) for site, layer in list_dense_layers(net)]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    if unread := [site for site, count in counts.items() if not count]:
        raise AptlabError(f"no token went through {', '.join(unread)}; importance needs a batch of text")
    return {site: (total / counts[site]).sqrt().float() for site, total in sums.items()}


@torch.no_grad()
def sort_hidden_units(net: Decoder, importance: Mapping[str, Tensor]) -> None:
    """Move the hidden units of each site so that the most important come first, in place.

    The network computes what it did, up to rounding. Its widths are then the best prefixes by this measure, so that a
    nested network begins from a dense one with slices that are not arbitrary (Cai et al. 2024, Flextron,
    arXiv:2406.10260, section 3). Equal units keep their order.
    """
    for site, layer in list_dense_layers(net):
        layer.order_units(importance[site].argsort(descending=True, stable=True))
