"""Weights by Hugging Face names, and back. q, k, v and gate, up are single matrices here and mostly apart there."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from aptlab.errors import CheckpointError
from aptlab.models.decoder import Decoder
from aptlab.models.hf.gemma import fold_gemma_scales, unfold_gemma_scales
from aptlab.models.hf.gpt_oss import stack_expert, unstack_expert
from aptlab.models.hf.layout import Family
from aptlab.models.hf.read import HFModel
from aptlab.models.hf.stored import read_stored, write_stored
from aptlab.models.layouts import convert_layout, replace_layout
from aptlab.nn.shape import Shape

IGNORED = ("rotary_emb.inv_freq",)  # tables that very old checkpoints carry
NOT_OURS = ("rotaries.",)  # learned frequencies, which go into config.json


def list_matrix_rows(part: str, shape: Shape) -> list[int]:
    """Rows of the matrices that one of ours joins, in a model whose blocks have one hidden size."""
    heads, kv_heads, head_dim = shape.head_sizes()
    return {
        "attention.qkv": [heads * head_dim, kv_heads * head_dim, kv_heads * head_dim],
        "ffn.gate_up": [shape.count_hidden(0), shape.count_hidden(0)],
    }[part]


def convert_to_hf(net: Decoder, family: Family, *, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """A decoder's weights under the names of a layout; a tied head is left out, as there. `dtype` null keeps it.

    Rows of queries and keys are permuted where the layout pairs other dims than the rule.
    """
    weights = convert_layout(net.state_dict(), net.shape, net.rope, target=family.layout)
    if family.sandwich:
        weights = unfold_gemma_scales(weights, net.shape, tied=net.tied)
    named: dict[str, Tensor] = {}
    for name, weight in weights.items():
        if name.startswith(NOT_OURS) or (name == "head.weight" and net.tied):
            continue
        theirs = list_hf_names(name, family, tied=net.tied)
        parts = [weight] if len(theirs) == 1 else weight.split(list_matrix_rows(_part(name), net.shape))
        named |= dict(zip(theirs, parts, strict=True))
    if family.expert:
        named = stack_expert(named)
    named = write_stored(named, family, net.shape)
    return {name: weight.detach().to("cpu", dtype).contiguous().clone() for name, weight in named.items()}


def convert_from_hf(source: HFModel, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state_dict with the names and sizes of `expected` (our decoder's own), in float32.

    Raises CheckpointError that lists every weight which is missing, left over, or of another size.
    """
    weights = unstack_expert(source.weights) if source.family.expert else source.weights
    weights = read_stored(weights, source.family, source.shape)
    left = {name: weight for name, weight in weights.items() if not name.endswith(IGNORED)}
    if source.tied:
        left.pop(f"{source.family.outer['head']}.weight", None)
    found: dict[str, Tensor] = {}
    problems: list[str] = []
    for name, parameter in expected.items():
        theirs = list_hf_names(name, source.family, tied=source.tied)
        missing = [hf_name for hf_name in theirs if hf_name not in weights]
        for hf_name in theirs:
            left.pop(hf_name, None)
        if missing:
            problems += [f"{hf_name} is missing in {source.file}" for hf_name in missing]
            continue
        parts = [weights[hf_name] for hf_name in theirs]
        size = [sum(part.shape[0] for part in parts), *parts[0].shape[1:]]
        if size != list(parameter.shape):
            problems.append(f"{' + '.join(theirs)} has sizes {size}, config.json says {list(parameter.shape)}")
            continue
        found[name] = torch.cat([part.to(torch.float32) for part in parts]) if len(parts) > 1 else parts[0].float()
    problems += [f"{name} has no place in this layout" for name in left]
    if problems:
        more = f"\n… and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise CheckpointError("the weights do not fit config.json:\n" + "\n".join(problems[:8]) + more)
    if source.family.sandwich:
        found = fold_gemma_scales(found, source.shape, tied=source.tied, scalar=source.scalar)
    return _laid_out(found, source)


def _laid_out(weights: dict[str, Tensor], source: HFModel) -> dict[str, Tensor]:
    """Weights in the layout of the source's rule, out of the layout of its family."""
    rules = (source.rope.for_layer(layer).rule for layer in range(source.shape.depth))
    layout = next((rule.layout for rule in rules if rule is not None), source.family.layout)
    if layout == source.family.layout:
        return weights
    return convert_layout(weights, source.shape, replace_layout(source.rope, source.family.layout), target=layout)


def list_hf_names(name: str, family: Family, *, tied: bool) -> list[str]:
    """Their names of one of our weights."""
    part, _, kind = name.rpartition(".")
    if part in ("embed", "norm", "head"):
        return [f"{family.outer['embed' if name == 'head.weight' and tied else part]}.{kind}"]
    layer = name.split(".")[1]
    return [f"{family.outer['layers']}.{layer}.{stem}.{kind}" for stem in family.names[_part(name)].split()]


def _part(name: str) -> str:
    """blocks.0.attention.qkv.weight -> attention.qkv"""
    return name.split(".", 2)[2].rpartition(".")[0]
