"""The Llama-shaped decoder. Legend: B batch, T tokens, S all tokens with the cached ones, C dim, V vocabulary."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from aptlab.errors import AptlabError
from aptlab.nn.attention.cache import KVCache
from aptlab.nn.block import Block
from aptlab.nn.context import ForwardContext
from aptlab.nn.positions.absolute import LearnedPositions, NoEmbed
from aptlab.nn.positions.bias import NoBias
from aptlab.nn.positions.layer import LayerPositions, Positions
from aptlab.nn.positions.rope import Rope
from aptlab.nn.positions.rotary import LONGEST, build_rotary
from aptlab.nn.shape import Shape

INIT_STD = 0.02


class Output(NamedTuple):
    """Logits [B, T, V], and statistics per smoothing site ("3/ffn") where they were asked for."""

    logits: Tensor
    traces: dict[str, dict[str, Tensor]]


class Decoder(nn.Module):
    """Embedding, pre-norm blocks, norm, head (Touvron et al. 2023, arXiv:2302.13971).

    Weights start as N(0, 0.02); matrices that write to the stream are divided by sqrt(2 · depth) (GPT-2).
    `tied` shares the embedding with the head. Components are factories, called here once per place.
    """

    def __init__(
        self,
        shape: Shape,
        *,
        vocab: int,
        rope: Rope,
        attention: Callable[..., nn.Module],
        ffn: Callable[..., nn.Module],
        norm: Callable[..., nn.Module],
        smooth: Callable[..., nn.Module],
        tied: bool = True,
        beside: Positions | None = None,
    ) -> None:
        super().__init__()
        self.shape, self.vocab, self.tied = shape, vocab, tied
        beside = beside or Positions()
        self.rotaries, self.biases = nn.ModuleList(), nn.ModuleList()
        self.embed = nn.Embedding(vocab, shape.dim)
        added = NoEmbed(shape.dim) if beside.embed is None else beside.embed(dim=shape.dim)
        self.places = None if isinstance(added, NoEmbed) else added
        last = norm(shape.dim)
        places = self._places(rope, beside.bias, last)
        self.blocks = nn.ModuleList(
            Block(shape, layer=layer, place=place, attention=attention, ffn=ffn, norm=norm, smooth=smooth)
            for layer, place in enumerate(places)
        )
        self.norm = last
        self.head = nn.Linear(shape.dim, vocab, bias=False)
        self.reset_parameters()

    def _places(self, rope: Rope, bias: Callable[..., nn.Module] | None, norm: nn.Module) -> list[LayerPositions]:
        """What each layer does with positions; layers with equal rules share one module."""
        self.rope = rope
        heads, kv_heads, head_dim = self.shape.head_sizes()
        placed = [rope.at(layer) for layer in range(self.shape.depth)]
        rules = {one.rule: one.rule for one in placed if one.rule is not None}
        modules = {rule: build_rotary(rule, head_dim=head_dim, heads=heads, kv_heads=kv_heads) for rule in rules}
        self.rotaries = nn.ModuleList(modules.values())
        if bias is not None:
            self.biases = build_biases(bias, self.shape)
        return [
            LayerPositions(
                rotary=None if one.rule is None else modules[one.rule],
                scores=self.biases[layer % len(self.biases)] if len(self.biases) else None,
                chunk=one.chunk,
                growth=one.growth,
                norm_after=one.norm_after,
                norm_eps=float(getattr(norm, "eps", LayerPositions.norm_eps)),
            )
            for layer, one in enumerate(placed)
        ]

    def swap_rope(self, rope: Rope) -> None:
        """Turn by another rule from now on; weights stay as they are."""
        device = self.embed.weight.device
        for block, place in zip(self.blocks, self._places(rope, None, self.norm), strict=True):
            block.attention.place = place  # type: ignore[union-attr]
        self.rotaries.to(device)

    def reset_parameters(self) -> None:
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                writes = name.endswith(("attention.out", "ffn.down"))
                nn.init.normal_(module.weight, std=INIT_STD / math.sqrt(2 * self.shape.depth) if writes else INIT_STD)
                if isinstance(module, nn.Linear) and module.bias is not None:
                    nn.init.zeros_(module.bias)
        if self.tied:
            self.head.weight = self.embed.weight

    def forward(
        self,
        tokens_BT: Tensor,
        *,
        positions: Tensor | None = None,
        segments: Tensor | None = None,
        lengths: Tensor | None = None,
        cache: KVCache | None = None,
        trace: bool = False,
    ) -> Output:
        """Logits of every token's successor.

        positions  int64 [B, T], or [B, T, N] for a rule of N streams; None = counted from the cache's length
        segments   int64 [B, T]; a token sees earlier tokens of its own segment; 0 = padding
        lengths    int64 [B, T]: tokens that the sequence of each token has in the end, for rules that choose by it;
                   None = as the cache says, or up to the last position of the segment
        cache      keys and values of earlier tokens, extended in place
        """
        tokens = tokens_BT.shape[1]
        if positions is None:
            self._check_length(tokens + (cache.length if cache is not None else 0))
        else:
            check_positions(positions)
        step = ForwardContext(
            tokens, positions=positions, segments=segments, lengths=lengths, cache=cache, device=tokens_BT.device
        )
        x, carries, traces = self._embedded(tokens_BT, step), (None, None), {}
        for block in self.blocks:
            x, carries, seen = block(x, carries, step, trace=trace)
            traces |= _named(block.layer, seen)  # type: ignore[arg-type]
        if cache is not None:
            cache.advance(tokens)
        return Output(self.head(self.norm(x)), traces)

    def _embedded(self, tokens_BT: Tensor, step: ForwardContext) -> Tensor:
        x = self.embed(tokens_BT)
        return x if self.places is None else x + self.places(step.places).to(x.dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Decoder:
        """Keep the head tied on the way from or to the meta device (findings/torch_shared_weight_meta.sh)."""
        super()._apply(fn, recurse)
        if self.tied:
            self.head.weight = self.embed.weight
        return self

    def new_cache(self, batch: int, length: int, *, lengths: Tensor | None = None) -> KVCache:
        """An empty cache that fits this model's layers, device and dtype (that of autocast, where it is on).

        `lengths` [B] says how many tokens each row will have in the end, None = `length`.
        """
        weight = self.embed.weight
        kind = weight.device.type
        _, kv_heads, head_dim = self.shape.head_sizes()
        return KVCache.empty(
            reach=[block.attention.reach for block in self.blocks],  # type: ignore[union-attr]
            batch=batch,
            kv_heads=kv_heads,
            head_dim=head_dim,
            length=length,
            lengths=lengths,
            dtype=torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype,
            device=weight.device,
        )

    @property
    def longest(self) -> int:
        """Positions that the model has."""
        return self.places.length if isinstance(self.places, LearnedPositions) else LONGEST

    def _check_length(self, tokens: int) -> None:
        if tokens > LONGEST:
            raise AptlabError(f"{tokens} tokens are more than the {LONGEST} positions that the rotary tables cover")


def build_biases(factory: Callable[..., nn.Module], shape: Shape) -> nn.ModuleList:
    """One module for all layers where it says that layers share it, else one per layer; none for `bias=none`."""
    heads, _, head_dim = shape.head_sizes()
    first = factory(heads=heads, head_dim=head_dim, layer=0)
    if isinstance(first, NoBias):
        return nn.ModuleList()
    rest = [] if first.shared else range(1, shape.depth)
    return nn.ModuleList([first, *(factory(heads=heads, head_dim=head_dim, layer=layer) for layer in rest)])


def check_positions(positions: Tensor) -> None:
    """AptlabError for positions that no table holds; on an accelerator the device itself stops instead."""
    if torch.compiler.is_compiling():
        return
    if positions.device.type == "cpu":
        if positions.numel() and (positions.min() < 0 or positions.max() >= LONGEST):
            raise AptlabError(
                f"positions reach from {int(positions.min())} to {int(positions.max())}; they must be in "
                f"[0, {LONGEST}): count from 0 at the first real token, and give padding position 0 with segment 0"
            )
    elif positions.device.type == "cuda":
        torch._assert_async(((positions >= 0) & (positions < LONGEST)).all())


def _named(layer: int, traces: tuple[Any, Any]) -> dict[str, dict[str, Tensor]]:
    sites = zip(("attention", "ffn"), traces, strict=True)
    return {f"{layer}/{site}": trace for site, trace in sites if trace is not None}
