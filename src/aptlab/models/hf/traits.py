"""What of a decoder a Hugging Face layout must be able to say, and the layout that can."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import nn

from aptlab.errors import ConfigError
from aptlab.models.decoder import Decoder
from aptlab.models.hf import family as families
from aptlab.models.hf import family_blocks as blocks
from aptlab.models.hf import scalar_families as scalars
from aptlab.models.hf.block_traits import BlockTraits, list_block_lacks, read_block_traits
from aptlab.models.hf.layout import Family
from aptlab.models.hf.scalars import Multipliers, list_growth_lacks, list_multiplier_lacks
from aptlab.nn.attention import FullAttention, QKNorm
from aptlab.nn.embedding import ScaledEmbedding
from aptlab.nn.ffn import GELU, ClampedSwiGLU, GeGLU, SwiGLU
from aptlab.nn.memory import Memory
from aptlab.nn.norm import LayerNorm, RMSNorm
from aptlab.nn.positions.rope import Growth, Rope
from aptlab.nn.smooth import Plain, PostNorm, ResidualScale

KEEP = "or keep the checkpoint and use `aptlab generate` and `aptlab eval`"


class LayerTraits(NamedTuple):
    """What positions do in one layer; `window` is how far back it sees."""

    rule: Rope | None
    chunk: int | None
    growth: Growth | None
    norm_after: bool
    window: int | None


@dataclass(frozen=True)
class Traits:
    """What the layouts differ in.

    around   the block without its layers
    act      the feed-forward's gate as transformers names it
    clamp    alpha and limit of a clamped gate
    multipliers  fixed factors on embedding and branches
    square   whether heads · head_dim is the width
    grouped  whether heads share keys and values
    """

    layers: tuple[LayerTraits, ...]
    around: BlockTraits
    bias: bool | str
    act: str
    clamp: tuple[float, float] | None
    multipliers: Multipliers
    ffn_bias: bool
    sinks: bool
    head_dim: int
    square: bool
    grouped: bool

    @property
    def sandwich(self) -> bool:
        """Whether norms stand before and after every layer."""
        return self.around.block == "sandwich"

    @property
    def qk_norm(self) -> bool:
        """Whether queries and keys are normalised."""
        return self.around.qk_norm is not None

    @property
    def rules(self) -> list[Rope]:
        """The different rules of layers that rotate."""
        return list(dict.fromkeys(layer.rule for layer in self.layers if layer.rule is not None))

    @property
    def windows(self) -> list[int | None]:
        return [layer.window for layer in self.layers]

    @property
    def chunked(self) -> bool:
        return any(layer.chunk or (layer.growth and layer.rule is None) or layer.norm_after for layer in self.layers)

    @property
    def growing(self) -> bool:
        """Whether queries of layers that rotate grow with their position."""
        return any(layer.growth is not None and layer.rule is not None for layer in self.layers)

    @property
    def scaled(self) -> bool:
        """Whether embedding or branches have fixed factors, or attention has one and no cap."""
        logits = self.around.logits
        return self.multipliers != Multipliers() or (logits.scale is not None and logits.softcap is None)

    @property
    def scheduled(self) -> bool:
        return any(layer.rule is None for layer in self.layers)

    @property
    def partial(self) -> bool:
        return any(len(rule.inv_freq(self.head_dim)) < self.head_dim // 2 for rule in self.rules)

    @property
    def sharpened(self) -> bool:
        """Whether a rule has a temperature on the logits."""
        return any(rule.temperature != 1 and rule.temperature_on == "logits" for rule in self.rules)

    @property
    def growths(self) -> list[Growth | None]:
        return [layer.growth for layer in self.layers]

    @property
    def switching(self) -> bool:
        """Whether frequencies go by the length of a text."""
        return any(len(rule.regimes(self.head_dim)) > 1 for rule in self.rules)


def read_traits(net: Decoder) -> Traits:
    """Read a decoder; ConfigError for a part that no layout has."""
    _beside(net)
    for block in net.blocks:
        _plain_block(block)
    if type(net.norm) not in (RMSNorm, LayerNorm):
        raise ConfigError(explain_refusal("norm", net.norm, "norm=rms or layer"))
    block: Any = net.blocks[0]
    layers = tuple(_layer(net, index) for index in range(net.shape.depth))
    heads, kv_heads, head_dim = net.shape.head_sizes()
    return Traits(
        layers=layers,
        around=read_block_traits(net),
        bias=_bias(block.attention),
        act=_act(block.ffn),
        clamp=(block.ffn.alpha, block.ffn.limit) if isinstance(block.ffn, ClampedSwiGLU) else None,
        multipliers=_multipliers(net),
        ffn_bias=block.ffn.down.bias is not None,
        sinks=block.attention.sinks is not None,
        head_dim=head_dim,
        square=heads * head_dim == net.shape.dim,
        grouped=heads != kv_heads,
    )


def choose_family(found: Traits) -> Family:
    """The layout for a decoder, by what only it has; ConfigError names what it lacks."""
    family, why = _nearest(found)
    for problem, setting, way_out in _lacks(family, found):
        if problem:
            raise ConfigError(
                f"{setting} cannot be exported to format=hf: {family.title} is the layout {why}, and it has no such "
                f"thing; train with {way_out} to export, {KEEP}"
            )
    epsilons = found.around.epsilons
    for name, eps in epsilons.items():
        if eps != epsilons["norm.eps"]:
            raise ConfigError(
                f"norm.eps={epsilons['norm.eps']} differs from {name}={eps}, and the "
                f"{family.title} layout has one for both; train with equal ones to export to format=hf"
            )
    return family


def _nearest(found: Traits) -> tuple[Family, str]:
    windows = any(found.windows)
    if found.sinks or found.clamp:
        return families.GPT_OSS, "with attention.sinks=true or ffn=swiglu_clamped"
    if found.around.norm != "rms":
        return _nearest_with_means(found)
    if found.sandwich:
        where = "smooth=post_norm" if found.around.post_norm else "block=sandwich"
        if found.qk_norm:
            return families.GEMMA3, f"with {where} and attention.qk_norm=true"
        if found.partial or found.bias == "qkv":
            return scalars.GLM4, f"with {where} and rope=partial or attention.bias=qkv"
        return blocks.GEMMA2, f"with {where}"
    if found.around.block == "reordered":
        mixed = windows or len(found.rules) > 1
        return (blocks.OLMO3 if mixed else blocks.OLMO2), f"with block=reordered and {'' if mixed else 'no '}windows"
    if found.scaled:
        return scalars.GRANITE, "with fixed factors on embedding, attention or branches"
    if found.growing:
        return scalars.MINISTRAL3, "of rope=growing"
    if found.chunked:
        return families.LLAMA4, "of rope=irope with blocks, growth or qk_norm"
    if found.partial and (found.bias == "qkv" or found.rules[0].layout == "interleaved"):
        return (
            scalars.GLM,
            "in which the first dims of a head rotate alone, in neighbouring pairs or with q, k, v biased",
        )
    if found.partial:
        return families.PHI3, "in which the first dims of a head rotate alone"
    if found.around.qk_norm == QKNorm(where="after"):
        return scalars.HUNYUAN, "with a norm on queries and keys after the rotation"
    if found.qk_norm:
        return families.QWEN3, "with attention.qk_norm=true"
    if found.bias == "qkv":
        return families.QWEN2, "with attention.bias=qkv"
    if found.scheduled or (windows and (not all(found.windows) or found.bias or found.ffn_bias)):
        return families.SMOLLM3, "in which layers differ in rotation or window"
    if found.switching and found.square and not found.bias and not found.ffn_bias:
        return families.PHI3, "with short and long frequencies"
    return (families.MISTRAL, "with one window for all layers") if windows else (families.LLAMA, "of plain decoders")


def _nearest_with_means(found: Traits) -> tuple[Family, str]:
    """Of layouts whose norm takes the mean off."""
    block = found.around.block
    if not found.around.gated:
        if block == "parallel_shared":
            return blocks.PHI, "with block=parallel_shared and ffn=gelu"
        return blocks.GPT_NEOX, "with norm=layer and ffn=gelu"
    if block == "parallel_shared" and found.around.norm == "layer without bias":
        if found.scheduled or any(found.windows):
            return blocks.COHERE2, "with block=parallel_shared and windows"
        return blocks.COHERE, "with block=parallel_shared and norm.bias=false"
    return blocks.STABLELM, "with norm=layer and ffn=swiglu"


def _lacks(family: Family, found: Traits) -> list[tuple[bool, str, str]]:
    """(whether it is lacking, setting, way out) of everything a layout may lack."""
    biases = " or ".join(str(bias).lower() for bias in family.biases)
    windows = {window for window in found.windows if window is not None}
    mixed = bool(windows) and None in found.windows
    return [
        *list_block_lacks(family, found.around),
        (family.expert and not found.sinks, "attention.sinks=false", "attention.sinks=true"),
        (family.expert and found.clamp is None, "ffn other than swiglu_clamped", "ffn=swiglu_clamped"),
        (family.expert and not found.ffn_bias, "ffn.bias=false", "ffn.bias=true"),
        (found.chunked and not family.chunked, "rope=irope with blocks, growth or qk_norm", "rope=yarn"),
        (found.bias not in family.biases, f"attention.bias={str(found.bias).lower()}", f"attention.bias={biases}"),
        (found.ffn_bias and not family.ffn_bias, "ffn.bias=true", "ffn.bias=false"),
        (not found.ffn_bias and not family.gated, "ffn.bias=false", "ffn.bias=true"),
        (
            not found.square and bool(family.heads),
            f"size.head_dim={found.head_dim}, which is not dim / heads,",
            "heads of dim / heads",
        ),
        (found.grouped and family.heads == "single", "size.kv_heads", "size.kv_heads=null"),
        (bool(windows) and family.windows == "none", "attention=sliding", "attention=full"),
        (mixed and family.windows == "all", "attention.window.full_every", "attention.window.full_every=null"),
        *list_multiplier_lacks(family, found.multipliers),
        (
            QKNorm(where="after") in family.allowed_qk_norms and found.sharpened,
            "rope.temperature_on=logits",
            "rope.temperature_on=cos_sin, which the norm after the rotation undoes",
        ),
        *list_growth_lacks(family, found.growths, growing=found.growing),
        (found.scheduled and not family.schedule, "a rope without rotation in some layers", "a rope that rotates all"),
        (
            family is blocks.COHERE2 and any((layer.rule is None) == bool(layer.window) for layer in found.layers),
            "a rope that rotates full layers, or no sliding ones,",
            "rope.interval=4 and attention.window.full_every=4",
        ),
        (found.partial and not family.partial, "rope=partial", "rope=standard or rope=proportional"),
        (
            found.partial and found.switching and not found.square,
            f"rope.fraction with two lists of divisors and size.head_dim={found.head_dim}, which is not dim / heads,",
            "heads of dim / heads",
        ),
    ]


def _beside(net: Decoder) -> None:
    """Raises ConfigError for positions that are added."""
    if len(net.biases):
        raise ConfigError(explain_refusal("bias", net.biases[0], "bias=none"))
    if net.embed_positions is not None:
        raise ConfigError(explain_refusal("embed", net.embed_positions, "embed=none"))


def _plain_block(block: nn.Module) -> None:
    """Raises ConfigError unless every part of the block is one that some layout has."""
    joins, ways = (Plain, PostNorm, ResidualScale), "smooth=none, post_norm or residual_scale"
    parts = (
        ("smooth", block.attention_smooth, joins, ways),
        ("smooth", block.ffn_smooth, joins, ways),
        ("attention", block.attention, (FullAttention,), "attention=full"),
        ("ffn", block.ffn, (SwiGLU, GeGLU, GELU, ClampedSwiGLU), "ffn=swiglu, geglu or gelu"),
    )
    norms = (block.norm, block.attention_norm, block.attention_norm_after, block.ffn_norm, block.ffn_norm_after)
    parts += tuple(("norm", norm, (RMSNorm, LayerNorm, nn.Identity), "norm=rms or layer") for norm in norms)
    if isinstance(block.attention, Memory):
        raise ConfigError(explain_refusal("memory", block.attention, "memory=none"))
    for group, part, plain, way_out in parts:
        if type(part) not in plain:
            raise ConfigError(explain_refusal(group, part, way_out))


def explain_refusal(group: str, part: object, way_out: str) -> str:
    return (
        f"{group}={type(part).__name__} cannot be exported to format=hf: no Hugging Face layout computes it; "
        f"train with {way_out} to export, {KEEP}"
    )


def _layer(net: Decoder, index: int) -> LayerTraits:
    placed = net.rope.for_layer(index)
    window: Any = net.blocks[index].attention.window  # type: ignore[union-attr]
    return LayerTraits(placed.rule, placed.chunk, placed.growth, placed.norm_after, window)


def _multipliers(net: Decoder) -> Multipliers:
    """Fixed factors; ConfigError where sites or layers differ."""
    joins = [join for block in net.each_block() for join in (block.attention_smooth, block.ffn_smooth)]
    factors = {join.factor if isinstance(join, ResidualScale) else 1.0 for join in joins}
    if len(factors) > 1:
        raise ConfigError(
            f"smooth.factor differs between sites ({', '.join(f'{factor:g}' for factor in sorted(factors))}) and "
            "cannot be exported to format=hf: Granite has one; train with one to export"
        )
    scale = net.embed.scale if isinstance(net.embed, ScaledEmbedding) else 1.0
    return Multipliers(embedding=scale, residual=factors.pop())


def _bias(attention: FullAttention) -> bool | str:
    if attention.qkv.bias is None:
        return False
    return True if attention.out.bias is not None else "qkv"


def _act(ffn: SwiGLU | GeGLU | GELU | ClampedSwiGLU) -> str:
    if not isinstance(ffn, GeGLU | GELU):
        return "silu"
    return "gelu" if ffn.approximate == "none" else "gelu_pytorch_tanh"
