"""Networks that give a row one class. Legend: B batch, T tokens, C dim, K classes, P patches, H W pixels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from aptlab.errors import AptlabError, ConfigError
from aptlab.limits import PositiveInt
from aptlab.models.layer_positions import add_biases, build_biases, build_rotaries
from aptlab.models.output import Output
from aptlab.nn.block import Block
from aptlab.nn.context import ForwardContext
from aptlab.nn.init import reset_tree
from aptlab.nn.memory import Memory
from aptlab.nn.norm import Norm
from aptlab.nn.positions import Positions
from aptlab.nn.positions.absolute import AddedPositions, NoEmbed
from aptlab.nn.shape import Shape
from aptlab.nn.width import Width, check_width, merge_widths

INIT_STD = 0.02


class Inputs(nn.Module, ABC):
    """What a row is as a stream of vectors: built as inputs(dim), called with a batch of rows, gives [B, T, C].

    row_kind  what it reads, as data call it: images or tokens; None: it sees by itself
    """

    row_kind: ClassVar[str | None] = None

    @abstractmethod
    def forward(self, rows: Tensor) -> Tensor:
        """The stream of each row, [B, T, C]."""


class PatchEmbedding(Inputs):
    """Squares of `patch` x `patch` pixels, row by row, each as a vector of the stream (arXiv:2010.11929, eq. 1):

    [B, channels, H, W] -> [B, H W / patch^2, C].
    """

    row_kind = "images"

    def __init__(self, dim: int, *, channels: PositiveInt = 1, patch: PositiveInt = 2) -> None:
        super().__init__()
        self.channels, self.patch = channels, patch
        self.project = nn.Linear(channels * patch * patch, dim)

    def forward(self, rows: Tensor) -> Tensor:
        _, channels, height, width = rows.shape
        if channels != self.channels or height % self.patch or width % self.patch:
            raise AptlabError(
                f"images of {channels} channels and {height} x {width} pixels are no whole patches; the model takes "
                f"{self.channels} channels and sides that {self.patch} divides (task.net.inputs)"
            )
        patches_BDP = nn.functional.unfold(rows, self.patch, stride=self.patch)
        return self.project(patches_BDP.transpose(1, 2))


class TokenInputs(Inputs):
    """Rows of a table for tokens: int64 [B, T] -> [B, T, C]."""

    row_kind = "tokens"

    def __init__(self, dim: int, *, vocab: PositiveInt | None) -> None:
        super().__init__()
        if vocab is None:  # it follows the tokenizer of the data
            raise ConfigError(
                "vocab=null, and these data have no tokens that would say it; choose data with tokens, as "
                "scenario=split_texts has, or a task that reads images"
            )
        self.table = nn.Embedding(vocab, dim)

    def forward(self, rows: Tensor) -> Tensor:
        return self.table(rows)


class RowClassifier(nn.Module, ABC):
    """Inputs as a stream, and blocks in which every token sees all others: how a network of classes begins.

    classes    outputs K; a scenario's classes are all there from the start
    inputs     factory inputs(dim): `PatchEmbedding` of images, `TokenInputs` of text
    block      factory block(shape, layer=, positions=), the same blocks as a decoder's
    norm       factory norm(dim) of the last norm
    positions  how tokens are placed

    Components draw their own weights, the rest starts as N(0, 0.02). What derives from it adds what reads the stream,
    and calls `reset_parameters` when all is there.
    """

    def __init__(
        self,
        shape: Shape,
        *,
        classes: PositiveInt,
        inputs: Callable[..., Inputs],
        block: Callable[..., Block],
        norm: Callable[..., Norm],
        positions: Positions | None = None,
    ) -> None:
        super().__init__()
        if classes < 2:
            raise ConfigError(f"classes={classes} leaves nothing to tell apart; use 2 or more")
        self.shape, self.classes = shape, classes
        positions = positions or Positions()
        self.rope = positions.rope
        self.inputs = inputs(shape.dim)
        added: AddedPositions = NoEmbed(shape.dim) if positions.embed is None else positions.embed(dim=shape.dim)
        self.embed_positions = added if added.adds else None
        self.norm = norm(shape.dim)
        self.rotaries, layers = build_rotaries(shape, positions.rope, self.norm)
        self.biases = nn.ModuleList() if positions.bias is None else build_biases(positions.bias, shape)
        layers = add_biases(layers, self.biases)
        self.blocks = nn.ModuleList(
            block(shape, layer=layer, positions=layer_positions) for layer, layer_positions in enumerate(layers)
        )
        refuse_memories(self.each_block())

    def reset_parameters(self) -> None:
        """Draw the start of training anew."""
        reset_tree(self, INIT_STD, self.shape.depth)

    def each_block(self) -> list[Block]:
        """The blocks, in order."""
        return cast("list[Block]", list(self.blocks))

    def bind_tasks(self, tasks: Sequence[Sequence[int]] | None) -> None:
        """Take the classes of each task from the data, None where tasks have none of their own; once, before use."""

    @property
    def widths(self) -> tuple[float, ...]:
        """Widths that the network can work with in all blocks, largest first; (1.0,) where no layer is nested."""
        return merge_widths([block.widths for block in self.each_block()])

    def encode(
        self, rows: Tensor, *, segments: Tensor | None, trace: bool, width: Width | None = None
    ) -> tuple[Tensor, ForwardContext]:
        """The stream after the last block, [B, T, C], and what the pass knows."""
        x_BTC = self.inputs(rows)
        context = ForwardContext(x_BTC.shape[1], segments=segments, causal=False, tracing=trace, device=x_BTC.device)
        context.widths = None if width is None else check_width(width, [block.widths for block in self.each_block()])
        context.prepare(self.rotaries)
        if self.embed_positions is not None:
            x_BTC = x_BTC + self.embed_positions(context.positions_BT).to(x_BTC.dtype)
        carries: dict[str, Any] = {}
        for block in self.blocks:
            x_BTC, carries = block(x_BTC, context, carries)
        context.finish()
        return x_BTC, context

    @abstractmethod
    def forward(
        self, inputs: Tensor, *, segments: Tensor | None = None, width: Width | None = None, trace: bool = False
    ) -> Any:
        """Logits [B, K], one vector for each row as `hidden` [B, C], losses and statistics of layers, as in `Output`.

        segments  int64 [B, T], 0 = padding, which counts nowhere
        width     share of the hidden units that nested layers work with, one number or one for each block; None = all
        """


class Classifier(RowClassifier):
    """Inputs as a stream, blocks in which every token sees all others, norm, mean over tokens, head.

    classes, inputs, block, norm and positions are those of `RowClassifier`.
    """

    def __init__(
        self,
        shape: Shape,
        *,
        classes: PositiveInt,
        inputs: Callable[..., Inputs],
        block: Callable[..., Block],
        norm: Callable[..., Norm],
        positions: Positions | None = None,
    ) -> None:
        super().__init__(shape, classes=classes, inputs=inputs, block=block, norm=norm, positions=positions)
        self.head = nn.Linear(shape.dim, classes)
        self.reset_parameters()

    def forward(
        self, inputs: Tensor, *, segments: Tensor | None = None, width: Width | None = None, trace: bool = False
    ) -> Output:
        """Logits [B, K], and as `hidden` the means over tokens that the head reads, [B, C]."""
        x_BTC, context = self.encode(inputs, segments=segments, trace=trace, width=width)
        pooled_BC = average_tokens(self.norm(x_BTC), segments)
        return Output(self.head(pooled_BC), pooled_BC, dict(context.aux), dict(context.traces))


def refuse_memories(blocks: Sequence[Block]) -> None:
    """ConfigError for blocks with a memory of earlier segments, where every token sees all others."""
    for block in blocks:
        for site, mixer in block.mixers():
            if isinstance(mixer, Memory):
                raise ConfigError(
                    f"memory={mixer.option} at {site} reads from left to right, and in this model every token sees all "
                    "others; use memory=none, or model=decoder"
                )


def average_tokens(x_BTC: Tensor, segments: Tensor | None) -> Tensor:
    """The mean over the tokens of each row that are no padding, [B, C]."""
    if segments is None:
        return x_BTC.mean(1)
    kept_BT1 = (segments != 0).unsqueeze(-1).to(x_BTC.dtype)
    return (x_BTC * kept_BT1).sum(1) / torch.clamp(kept_BT1.sum(1), min=1)
