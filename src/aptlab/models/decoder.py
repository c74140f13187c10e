"""The Llama-shaped decoder. Legend: B batch, T tokens, S all tokens with the cached ones, C dim, V vocabulary."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from aptlab.errors import AptlabError
from aptlab.nn.block import Block
from aptlab.nn.cache import KVCache
from aptlab.nn.rope import Rope
from aptlab.nn.rotary import LONGEST, Angles, RotaryEmbedding
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
    ) -> None:
        super().__init__()
        self.shape, self.vocab, self.rope, self.tied = shape, vocab, rope, tied
        rules = [rope.at(layer) for layer in range(shape.depth)]
        distinct = [rule for rule in dict.fromkeys(rules) if rule is not None]
        self.rotaries = nn.ModuleList(
            RotaryEmbedding(rule, head_dim=shape.head_dim)  # type: ignore[arg-type]
            for rule in distinct
        )
        self.rotary_of = [None if rule is None else distinct.index(rule) for rule in rules]
        self.embed = nn.Embedding(vocab, shape.dim)
        self.blocks = nn.ModuleList(
            Block(
                shape,
                layer=layer,
                rope=None if index is None else self.rotaries[index],  # type: ignore[arg-type]
                attention=attention,
                ffn=ffn,
                norm=norm,
                smooth=smooth,
            )
            for layer, index in enumerate(self.rotary_of)
        )
        self.norm = norm(shape.dim)
        self.head = nn.Linear(shape.dim, vocab, bias=False)
        self.reset_parameters()

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
        cache: KVCache | None = None,
        trace: bool = False,
    ) -> Output:
        """Logits of every token's successor.

        positions  int64 [B, T]; null = counted from the cache's length
        segments   int64 [B, T]; a token sees earlier tokens of its own segment; 0 = padding
        cache      keys and values of earlier tokens, extended in place
        """
        past = cache.length if cache is not None else 0
        if positions is None:
            self._check_length(past + tokens_BT.shape[1])
            positions = torch.arange(past, past + tokens_BT.shape[1], device=tokens_BT.device).unsqueeze(0)
        mask = self._mask(tokens_BT.shape[1], segments, cache)
        angles: list[Angles] = [rotary.angles(positions) for rotary in self.rotaries]  # type: ignore[operator]
        x, carries, traces = self.embed(tokens_BT), (None, None), {}
        for block, index in zip(self.blocks, self.rotary_of, strict=True):
            at = None if index is None else angles[index]
            x, carries, seen = block(x, carries, angles=at, mask=mask, cache=cache, trace=trace)
            traces |= _named(block.layer, seen)  # type: ignore[arg-type]
        if cache is not None:
            cache.advance(tokens_BT.shape[1])
        return Output(self.head(self.norm(x)), traces)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Decoder:
        """Keep the head tied: torch copies a shared weight twice on the way from or to the meta device."""
        super()._apply(fn, recurse)
        if self.tied:
            self.head.weight = self.embed.weight
        return self

    def new_cache(self, batch: int, length: int) -> KVCache:
        """An empty cache that fits this model's layers, dtype and device."""
        weight = self.embed.weight
        _, kv_heads, head_dim = self.shape.head_sizes()
        return KVCache.empty(
            depth=self.shape.depth,
            batch=batch,
            kv_heads=kv_heads,
            head_dim=head_dim,
            length=length,
            dtype=weight.dtype,
            device=weight.device,
        )

    def _check_length(self, tokens: int) -> None:
        if tokens > LONGEST:
            raise AptlabError(f"{tokens} tokens are more than the {LONGEST} positions that the rotary tables cover")

    def _mask(self, tokens: int, segments_BT: Tensor | None, cache: KVCache | None) -> Tensor | None:
        """Which keys each query sees, bool [B, 1, T, S]; None where plain causal attention says it all."""
        past = cache.length if cache is not None else 0
        if cache is None:
            keys_BS = segments_BT
        else:
            keys_BS = cache.mark(segments_BT, tokens)
            if segments_BT is None:
                segments_BT = keys_BS[:, past:]
        if segments_BT is None or keys_BS is None:
            return None
        if cache is not None and not cache.padded and (past == 0 or tokens == 1):
            return None
        device = segments_BT.device
        queries_T1 = torch.arange(past, past + tokens, device=device).unsqueeze(1)
        causal_TS = torch.arange(past + tokens, device=device) <= queries_T1
        return (causal_TS & (segments_BT.unsqueeze(2) == keys_BS.unsqueeze(1))).unsqueeze(1)


def _named(layer: int, traces: tuple[Any, Any]) -> dict[str, dict[str, Tensor]]:
    sites = zip(("attention", "ffn"), traces, strict=True)
    return {f"{layer}/{site}": trace for site, trace in sites if trace is not None}
