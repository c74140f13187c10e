"""The Llama-shaped decoder. Legend: B batch, T tokens, S all tokens with the cached ones, C dim, V vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from aptlab.errors import AptlabError
from aptlab.models.head import HeadRule, VocabularyHead
from aptlab.models.layer_positions import add_biases, build_biases, build_rotaries
from aptlab.models.output import Hidden, Output
from aptlab.nn.attention.cache import KVCache
from aptlab.nn.block import Block
from aptlab.nn.context import ForwardContext, KeySource
from aptlab.nn.init import reset_tree
from aptlab.nn.norm import Norm
from aptlab.nn.positions import LayerPositions, Positions
from aptlab.nn.positions.absolute import AddedPositions, NoEmbed
from aptlab.nn.positions.rope import Rope
from aptlab.nn.positions.rotary import LONGEST
from aptlab.nn.segments import check_state_rows
from aptlab.nn.shape import Shape
from aptlab.nn.width import Width, check_width, merge_widths

INIT_STD = 0.02


class Decoder(nn.Module):
    """Embedding, blocks, norm, head (Touvron et al. 2023, arXiv:2302.13971).

    block      factory block(shape, layer=, positions=), as `aptlab.nn.block.Block`
    positions  how tokens are placed: rope, bias on scores, addition to the embedding
    norm       factory norm(dim) of the last norm
    tied       share the embedding with the head
    embedding  factory embedding(vocab, dim) of the token embedding, which has its table as `weight`
    head       scale, cap and bias of the logits; None = none of them

    Components draw their own weights, the rest starts as N(0, 0.02) (GPT-2).
    """

    def __init__(
        self,
        shape: Shape,
        *,
        vocab: int,
        block: Callable[..., Block],
        norm: Callable[..., Norm],
        positions: Positions | None = None,
        tied: bool = True,
        embedding: Callable[..., nn.Embedding] = nn.Embedding,
        head: HeadRule | None = None,
    ) -> None:
        super().__init__()
        self.shape, self.vocab, self.tied = shape, vocab, tied
        positions = positions or Positions()
        self.rotaries, self.biases = nn.ModuleList(), nn.ModuleList()
        self.embed: Any = embedding(vocab, shape.dim)
        added: AddedPositions = NoEmbed(shape.dim) if positions.embed is None else positions.embed(dim=shape.dim)
        self.embed_positions = added if added.adds else None
        last = norm(shape.dim)
        all_positions = self._layer_positions(positions.rope, positions.bias, last)
        self.blocks = nn.ModuleList(
            block(shape, layer=layer, positions=layer_positions) for layer, layer_positions in enumerate(all_positions)
        )
        self.norm = last
        self.head = VocabularyHead(shape.dim, vocab, head or HeadRule())
        self.reset_parameters()

    def _layer_positions(
        self, rope: Rope, bias: Callable[..., nn.Module] | None, norm: nn.Module
    ) -> list[LayerPositions]:
        """What each layer does with positions; layers with equal rules share one module."""
        self.rope = rope
        self.rotaries, layers = build_rotaries(self.shape, rope, norm)
        if bias is not None:
            self.biases = build_biases(bias, self.shape)
        return add_biases(layers, self.biases)

    def swap_rope(self, rope: Rope) -> None:
        """Rotate by another rule from now on; weights stay as they are."""
        device = self.embed.weight.device
        for block, positions in zip(self.each_block(), self._layer_positions(rope, None, self.norm), strict=True):
            block.bind_positions(positions)
        self.rotaries.to(device)

    def reset_parameters(self) -> None:
        """Draw the start of training anew."""
        reset_tree(self, INIT_STD, self.shape.depth)
        self._tie()

    def each_block(self) -> list[Block]:
        """The blocks, in order."""
        return cast("list[Block]", list(self.blocks))

    def forward(self, tokens: Tensor | None = None, *, embeds: Tensor | None = None, **given: Any) -> Output:
        """Logits of every token's successor; the arguments are those of `hidden`."""
        states = self.hidden(tokens, embeds=embeds, **given)
        return Output(self.head(states.hidden), *states)

    def hidden(
        self,
        tokens: Tensor | None = None,
        *,
        embeds: Tensor | None = None,
        positions: Tensor | None = None,
        segments: Tensor | None = None,
        lengths: Tensor | None = None,
        cache: KVCache | None = None,
        source: KeySource | None = None,
        width: Width | None = None,
        states: Mapping[str, Any] | None = None,
        trace: bool = False,
    ) -> Hidden:
        """States that the head reads: `net.head(net.hidden(tokens).hidden)` are the logits.

        tokens     int64 [B, T], or
        embeds     [B, T, C], in place of the rows of the embedding (pictures, sounds, soft prompts)
        positions  int64 [B, T], or [B, T, N] for a rule of N streams; None = counted from the cache's length
        segments   int64 [B, T]; a token sees earlier tokens of its own segment; 0 = padding
        lengths    int64 [B, T]: tokens that the sequence of each token has in the end, for rules that choose by it;
                   None = as the cache says, or up to the last position of the segment
        cache      keys and values of earlier tokens, extended in place
        source     states that cross attention takes its keys from
        width      share of the hidden units that nested layers work with, one number or one for each block; None = all
        states     `Output.states` of the segment before, for a text that is read in segments without a cache; {} = this
                   is the first. Documents keep their names in `segments` from segment to segment. Positions that are
                   not given are counted within each document
        trace      ask the sites for statistics
        """
        x = self.embed_tokens(tokens, embeds)
        if positions is None:
            self._check_length(x.shape[1] + (cache.length if cache is not None else 0))
        else:
            check_positions(positions)
        context = ForwardContext(
            x.shape[1],
            positions=positions,
            segments=segments,
            lengths=lengths,
            cache=cache,
            source=source,
            tracing=trace,
            device=x.device,
        )
        context.widths = None if width is None else self.check_width(width)
        if states is not None:
            check_state_rows(states, x.shape[0], self.mixing_sites)
            context.start_segment(states, x.shape[0])
        context.prepare(self.rotaries)
        if self.embed_positions is not None:
            x = x + self.embed_positions(context.positions_BT).to(x.dtype)
        carries: dict[str, Any] = {}
        for block in self.blocks:
            x, carries = block(x, context, carries)
        context.finish(x.shape[0])
        return Hidden(self.norm(x), dict(context.aux), dict(context.traces), dict(context.states))

    @property
    def mixing_sites(self) -> set[str]:
        """The sites that may keep a state, as "3/attention"."""
        return {site for block in self.each_block() for site, _ in block.mixers()}

    @property
    def widths(self) -> tuple[float, ...]:
        """Widths that the model can work with in all blocks, largest first; (1.0,) where no layer is nested."""
        return merge_widths([block.widths for block in self.each_block()])

    def check_width(self, width: Width) -> tuple[float, ...]:
        """The width of each block. ConfigError for one that a block does not have."""
        return check_width(width, [block.widths for block in self.each_block()])

    def embed_tokens(self, tokens: Tensor | None, embeds: Tensor | None) -> Tensor:
        """Rows of the embedding, or what is given in their place, [B, T, C]."""
        if (tokens is None) == (embeds is None):
            raise AptlabError("give either tokens or embeds; to mix them, look up net.embed and join the parts first")
        if embeds is None:
            return self.embed(tokens)
        if embeds.ndim != 3 or embeds.shape[-1] != self.shape.dim:
            raise AptlabError(f"embeds have sizes {list(embeds.shape)}, and the model takes [B, T, {self.shape.dim}]")
        return embeds

    def _tie(self) -> None:
        if self.tied:
            self.head.weight = self.embed.weight

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Decoder:
        """Keep the head tied on the way from or to the meta device (findings/torch_shared_weight_meta.sh)."""
        super()._apply(fn, recurse)
        self._tie()
        return self

    def new_cache(self, batch: int, length: int, *, lengths: Tensor | None = None, rolling: bool = True) -> KVCache:
        """An empty cache that fits this model's sites, device and dtype (that of autocast, where it is on).

        lengths  [B]: how many tokens each row will have in the end, None = `length`
        rolling  layers that see few keys keep few; without, all keep all, so that tokens can be taken back
        """
        weight = self.embed.weight
        kind = weight.device.type
        _, kv_heads, head_dim = self.shape.head_sizes()
        return KVCache.empty(
            max_keys={
                site: mixer.max_keys if rolling else None
                for block in self.each_block()
                for site, mixer in block.mixers()
            },
            batch=batch,
            kv_heads=kv_heads,
            head_dim=head_dim,
            length=length,
            lengths=lengths,
            dtype=torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype,
            device=weight.device,
        )

    @property
    def max_positions(self) -> int:
        """Positions that the model has."""
        return LONGEST if self.embed_positions is None else min(LONGEST, self.embed_positions.max_positions)

    def _check_length(self, tokens: int) -> None:
        if tokens > LONGEST:
            raise AptlabError(f"{tokens} tokens are more than the {LONGEST} positions that the rotary tables cover")


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
