"""The encoder-decoder: a source is read both ways, a target is written from left to right.

Legend: B batch, S tokens of the source, T tokens of the target, C dim, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar, NamedTuple, cast

import torch
from torch import Tensor, nn

from aptlab.errors import ConfigError
from aptlab.models.decoder import INIT_STD, check_positions
from aptlab.models.head import HeadRule, VocabularyHead
from aptlab.models.layer_positions import add_biases, build_biases, build_rotaries
from aptlab.models.output import Hidden, Output, Traces
from aptlab.nn.attention import CrossAttention
from aptlab.nn.attention.cache import KVCache
from aptlab.nn.block import Block
from aptlab.nn.context import ForwardContext, KeySource
from aptlab.nn.init import reset_tree
from aptlab.nn.norm import Norm
from aptlab.nn.positions import LayerPositions, Positions
from aptlab.nn.positions.absolute import AddedPositions, NoEmbed
from aptlab.nn.positions.rotary import LONGEST
from aptlab.nn.shape import Shape
from aptlab.nn.width import FULL


class Encoded(NamedTuple):
    """What a source became: states for cross attention, loss terms and statistics of the encoder's sites.

    source  states after the encoder's norm [B, S, C], and the segments of its tokens
    """

    source: KeySource
    aux: dict[str, Tensor]
    traces: Traces


class Stack(nn.Module):
    """Blocks one after the other, and the norm behind them."""

    def __init__(self, blocks: list[Block], norm: Norm) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.norm = norm

    def each_block(self) -> list[Block]:
        """The blocks, in order."""
        return cast("list[Block]", list(self.blocks))

    def forward(self, x_BTC: Tensor, context: ForwardContext) -> Tensor:
        """States after the norm, [B, T, C]."""
        carries: dict[str, Any] = {}
        for block in self.blocks:
            x_BTC, carries = block(x_BTC, context, carries)
        context.finish()
        return self.norm(x_BTC)


class EncoderDecoder(nn.Module):
    """Encoder blocks that see a whole source, decoder blocks that see earlier tokens and, by a cross site, the source
    (Vaswani et al. 2017, arXiv:1706.03762, figure 1; pre-norm and one embedding for source, target and head as in
    Raffel et al. 2020, arXiv:1910.10683, section 2.1).

    Both stacks have `shape.depth` blocks: at equal depth it has about twice the parameters of a decoder and about its
    FLOPs per token, for a token passes one stack (the same paper, section 3.2.2).

    encoder    factory block(shape, layer=, positions=) of the encoder
    decoder    the same of the decoder; one of its sites is a `CrossAttention`
    norm       factory norm(dim) of the last norm of each stack
    positions  how tokens are placed in each self-attention; both stacks share the rotation and the addition to the
               embedding, a bias has weights of its own in each and is symmetric in the encoder
    tied       share the embedding with the head
    embedding  factory embedding(vocab, dim)
    head       scale, cap and bias of the logits; None = none of them

    Sites need names that differ between the stacks. Raises ConfigError for parts that read from left to right alone in
    the encoder, for nested layers, and for a decoder without a cross site.
    """

    reads_source: ClassVar[bool] = True
    widths: ClassVar[tuple[float, ...]] = (FULL,)

    def __init__(
        self,
        shape: Shape,
        *,
        vocab: int,
        encoder: Callable[..., Block],
        decoder: Callable[..., Block],
        norm: Callable[..., Norm],
        positions: Positions | None = None,
        tied: bool = True,
        embedding: Callable[..., nn.Embedding] = nn.Embedding,
        head: HeadRule | None = None,
    ) -> None:
        super().__init__()
        self.shape, self.vocab, self.tied = shape, vocab, tied
        positions = positions or Positions()
        self.rope = positions.rope
        self.embed: Any = embedding(vocab, shape.dim)
        added: AddedPositions = NoEmbed(shape.dim) if positions.embed is None else positions.embed(dim=shape.dim)
        self.embed_positions = added if added.adds else None
        norms = norm(shape.dim), norm(shape.dim)
        self.rotaries, placed = build_rotaries(shape, positions.rope, norms[0])
        self.encoder_biases, self.biases = (
            nn.ModuleList() if positions.bias is None else build_biases(positions.bias, shape) for _ in range(2)
        )
        for bias in self.encoder_biases:
            cast(Any, bias).make_symmetric()
        self.encoder = Stack(build_blocks(encoder, shape, add_biases(placed, self.encoder_biases)), norms[0])
        self.decoder = Stack(build_blocks(decoder, shape, add_biases(placed, self.biases)), norms[1])
        check_stacks(self.encoder.each_block(), self.decoder.each_block())
        self.head = VocabularyHead(shape.dim, vocab, head or HeadRule())
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the start of training anew."""
        reset_tree(self, INIT_STD, self.shape.depth)
        self._tie()

    def each_block(self) -> list[Block]:
        """The blocks of the decoder, which generation runs."""
        return self.decoder.each_block()

    def check_width(self, width: object) -> None:
        """ConfigError: it has one width."""
        raise ConfigError(
            f"width={width}: an encoder-decoder has no widths, for no layer of it is nested; leave width out"
        )

    def forward(self, tokens: Tensor | None = None, *, decoder_tokens: Tensor, **given: Any) -> Output:
        """Logits of the successor of every token of the target, [B, T, V]; the arguments are those of `hidden`."""
        states = self.hidden(tokens, decoder_tokens=decoder_tokens, **given)
        return Output(self.head(states.hidden), *states)

    def hidden(
        self,
        tokens: Tensor | None = None,
        *,
        decoder_tokens: Tensor,
        segments: Tensor | None = None,
        decoder_positions: Tensor | None = None,
        decoder_segments: Tensor | None = None,
        encoded: Encoded | None = None,
        cache: KVCache | None = None,
        trace: bool = False,
    ) -> Hidden:
        """States that the head reads, [B, T, C], and the loss terms and statistics of both stacks.

        tokens             int64 [B, S], the source, or
        encoded            what `encode` gave for it
        segments           int64 [B, S] of the source, 0 = padding; a token sees its own segment, in its own stack and
                           in the source
        decoder_tokens     int64 [B, T], the target up to now
        decoder_positions  int64 [B, T]; None = counted from the cache's length
        decoder_segments   int64 [B, T]; None = one segment, number 1
        cache              keys and values of earlier tokens, and of the source, extended in place
        """
        if (tokens is None) == (encoded is None):
            raise ConfigError("give either tokens of the source, or what encode() made of them")
        if encoded is None:
            assert tokens is not None
            encoded = self.encode(tokens, segments=segments, trace=trace)
        if decoder_positions is not None:
            check_positions(decoder_positions)
        context = ForwardContext(
            decoder_tokens.shape[1],
            positions=decoder_positions,
            segments=decoder_segments,
            cache=cache,
            source=encoded.source,
            tracing=trace,
            device=decoder_tokens.device,
        )
        hidden_BTC = self.decoder(self._embed(decoder_tokens, context), context)
        return Hidden(hidden_BTC, {**encoded.aux, **context.aux}, {**encoded.traces, **context.traces})

    def encode(
        self,
        tokens: Tensor,
        *,
        segments: Tensor | None = None,
        positions: Tensor | None = None,
        trace: bool = False,
    ) -> Encoded:
        """The states of a source [B, S], where every token sees all of its segment."""
        if positions is not None:
            check_positions(positions)
        context = ForwardContext(
            tokens.shape[1],
            positions=positions,
            segments=segments,
            causal=False,
            tracing=trace,
            device=tokens.device,
        )
        states_BSC = self.encoder(self._embed(tokens, context), context)
        return Encoded(KeySource(states_BSC, segments), dict(context.aux), dict(context.traces))

    def _embed(self, tokens: Tensor, context: ForwardContext) -> Tensor:
        context.prepare(self.rotaries)
        x_BTC = self.embed(tokens)
        if self.embed_positions is None:
            return x_BTC
        return x_BTC + self.embed_positions(context.positions_BT).to(x_BTC.dtype)

    def new_cache(self, batch: int, length: int, *, lengths: Tensor | None = None, rolling: bool = True) -> KVCache:
        """An empty cache for `length` tokens of the target; it belongs to the source that it is first used with.

        The arguments are those of `Decoder.new_cache`. Keys of the source are kept as states, beside it.
        """
        weight = self.embed.weight
        kind = weight.device.type
        _, kv_heads, head_dim = self.shape.head_sizes()
        mixers = [pair for block in self.each_block() for pair in block.mixers()]
        return KVCache.empty(
            max_keys={site: mixer.max_keys if rolling else None for site, mixer in mixers if mixer.max_keys != 0},
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
        """Positions that each stack has."""
        return LONGEST if self.embed_positions is None else min(LONGEST, self.embed_positions.max_positions)

    def _tie(self) -> None:
        if self.tied:
            self.head.weight = self.embed.weight

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> EncoderDecoder:
        """Keep the head tied on the way from or to the meta device (findings/torch_shared_weight_meta.sh)."""
        super()._apply(fn, recurse)
        self._tie()
        return self


def build_blocks(block: Callable[..., Block], shape: Shape, layers: list[LayerPositions]) -> list[Block]:
    """One block for each layer's positions."""
    return [block(shape, layer=layer, positions=positions) for layer, positions in enumerate(layers)]


def check_stacks(encoder: list[Block], decoder: list[Block]) -> None:
    """ConfigError for blocks that no encoder-decoder is made of."""
    for problem in list_stack_problems(encoder, decoder):
        raise ConfigError(problem)


def list_stack_problems(encoder: list[Block], decoder: list[Block]) -> Iterator[str]:
    """What is wrong with the blocks, and the way out."""
    if shared := set(encoder[0].sites) & set(decoder[0].sites):
        yield (
            f"both stacks have a site {sorted(shared)[0]}, and what sites say is told apart by their names; give those "
            "of the encoder names of their own, as encoder_attention"
        )
    if not any(isinstance(mixer, CrossAttention) for _, mixer in decoder[0].mixers()):
        yield (
            f"the decoder has the sites {', '.join(decoder[0].sites)} and none of them reads the source; add a site "
            "whose layer is aptlab.nn.attention.CrossAttention"
        )
    if any(len(block.widths) > 1 for block in (*encoder, *decoder)):
        yield "ffn=matformer nests widths, which an encoder-decoder does not have; use ffn=swiglu, or model=decoder"
    for block in encoder:
        for site, mixer in block.mixers():
            if why := mixer.left_to_right:
                yield f"{why}, and the encoder's site {site} reads both ways; use another one, or model=decoder"
