"""What stands around the layers of a decoder's blocks, and what its attention and head do to logits."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import nn

from aptlab.errors import ConfigError
from aptlab.models.decoder import Decoder
from aptlab.models.head import HeadRule
from aptlab.models.hf.layout import Family
from aptlab.nn.attention import LogitRule, QKNorm
from aptlab.nn.ffn.base import GatedFeedForward
from aptlab.nn.norm import LayerNorm, RMSNorm
from aptlab.nn.smooth import PostNorm

NORM_OPTIONS = {"rms": "norm=rms", "layer": "norm=layer", "layer without bias": "norm=layer norm.bias=false"}
FORMS = {  # (block is parallel, norm of the block, norms before layers, norms after them)
    (False, False, True, False): "pre_norm",
    (False, False, True, True): "sandwich",
    (False, False, False, True): "reordered",
    (True, False, True, False): "parallel",
    (True, True, False, False): "parallel_shared",
}
Lacks = list[tuple[bool, str, str]]


class BlockTraits(NamedTuple):
    """The block as an option of `block`, its norms, and rules of logits.

    post_norm  whether norms after layers are those of smooth=post_norm
    """

    block: str
    post_norm: bool
    norm: str
    gated: bool
    qk_norm: QKNorm | None
    logits: LogitRule
    head: HeadRule
    epsilons: dict[str, float]


def read_block_traits(net: Decoder) -> BlockTraits:
    """The block of a decoder whose parts are known; ConfigError for an order of norms that no layout has."""
    block: Any = net.blocks[0]
    post_norm = isinstance(block.attention_smooth, PostNorm)
    before, after = ([getattr(block, f"{site}_norm{end}") for site in ("attention", "ffn")] for end in ("", "_after"))
    if post_norm:
        after = [block.attention_smooth.norm, block.ffn_smooth.norm]
    present = {name: [has_norm(part) for part in parts] for name, parts in (("before", before), ("after", after))}
    form = (block.parallel, has_norm(block.norm), all(present["before"]), all(present["after"]))
    mixed = any(len(set(found)) > 1 for found in present.values())
    twice = post_norm and has_norm(block.attention_norm_after)
    joined = has_norm(block.attention_norm_joined) or has_norm(block.ffn_norm_joined)
    if form not in FORMS or mixed or twice or joined:
        raise ConfigError(
            "block with these norms cannot be exported to format=hf: no Hugging Face layout has them in these places; "
            f"train with block={', '.join(FORMS.values())} to export"
        )
    norms = {"norm.eps": net.norm, "block.norm": block.norm, "norm before": before[0], "norm after": after[0]}
    if post_norm:
        norms["smooth.eps"] = norms.pop("norm after")
    found = {name: part for name, part in norms.items() if has_norm(part)}
    kinds = {name: describe_norm(part) for name, part in found.items() if name != "smooth.eps"}
    if len(set(kinds.values())) > 1:
        raise ConfigError(
            f"norms of different kinds ({', '.join(f'{name}: {kind}' for name, kind in kinds.items())}) cannot be "
            "exported to format=hf: every layout has one kind; train with one to export"
        )
    attention = block.attention
    epsilons = {name: part.eps for name, part in found.items()}
    if attention.qk_norm is not None:
        epsilons["attention.qk_norm_eps"] = attention.qk_norm_eps
    return BlockTraits(
        block=FORMS[form],
        post_norm=post_norm,
        norm=kinds["norm.eps"],
        gated=isinstance(block.ffn, GatedFeedForward),
        qk_norm=attention.qk_norm,
        logits=attention.logits,
        head=net.head.rule,
        epsilons=epsilons,
    )


def has_norm(part: nn.Module) -> bool:
    """Whether a place has a norm."""
    return not isinstance(part, nn.Identity)


def describe_norm(part: nn.Module) -> str:
    """rms, layer, or layer without bias."""
    if isinstance(part, RMSNorm):
        return "rms"
    assert isinstance(part, LayerNorm)
    return "layer" if part.bias is not None else "layer without bias"


def list_block_lacks(family: Family, found: BlockTraits) -> Lacks:
    """(whether it is lacking, setting, way out) of what a layout may lack of these."""
    blocks = " or ".join(f"block={name}" for name in family.blocks)
    block = "smooth=post_norm" if found.post_norm else f"block={found.block}"
    allowed = family.allowed_qk_norms
    has_cap = found.logits.softcap is not None
    scaled = found.logits.scale is not None
    return [
        (found.block not in family.blocks, block, "smooth=none" if found.post_norm else blocks),
        (found.norm != family.norm, NORM_OPTIONS[found.norm], NORM_OPTIONS[family.norm]),
        (found.gated and not family.gated, "ffn=swiglu", "ffn=gelu"),
        (not found.gated and family.gated, "ffn=gelu", "ffn=swiglu"),
        (
            found.qk_norm not in allowed,
            f"attention.qk_norm={_name_qk_norm(found.qk_norm)}",
            " or ".join(f"attention.qk_norm={_name_qk_norm(rule)}" for rule in allowed),
        ),
        (has_cap and not family.caps, "attention.logits.softcap", "attention.logits.softcap=null"),
        (scaled and not (family.sandwich or family.scaled), "attention.logits.scale", "attention.logits.scale=null"),
        (found.head.softcap is not None and not family.caps, "model.head.softcap", "model.head.softcap=null"),
        (found.head.scale != 1 and family.head != "scale", "model.head.scale", "model.head.scale=1"),
        (found.head.bias and family.head != "bias", "model.head.bias=true", "model.head.bias=false"),
        (not found.head.bias and family.head == "bias", "model.head.bias=false", "model.head.bias=true"),
    ]


def _name_qk_norm(rule: QKNorm | None) -> str:
    """A rule as an option says it."""
    if rule in (None, QKNorm()):
        return str(rule is not None).lower()
    assert rule is not None
    return f"{rule.kind} over {rule.over}" + (" after the rotation" if rule.where == "after" else "")
