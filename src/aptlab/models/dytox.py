"""DyTox: a shared encoder, and one token and one head for each task. Legend: B rows, P patches, C dim, K classes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from aptlab.limits import PositiveInt
from aptlab.models.classifier import INIT_STD, Inputs
from aptlab.models.growing import GrowingClassifier, TaskHead
from aptlab.models.output import GrowingOutput
from aptlab.nn.block import Block
from aptlab.nn.context import ForwardContext
from aptlab.nn.ffn import FeedForward
from aptlab.nn.norm import Norm
from aptlab.nn.positions import Positions
from aptlab.nn.shape import Shape
from aptlab.nn.task_attention import PatchKeys, TaskAttentionBlock
from aptlab.nn.width import Width


class DyTox(GrowingClassifier):
    """Dynamic token expansion (Douillard et al. 2022, arXiv:2111.11326):

    x = blocks(patches),  e_t = TAB([token_t; x]) for each known task t,  logits = [head_1(e_1), head_2(e_2), …]

    No row says to which task it belongs. The task attention block and the encoder are shared, each task adds a token
    and a head. Where a task has several tokens, e_t is the mean of what each of them gives by itself. The divergence
    head of the newest task reads e_t in training.

    The official code (arthurdouillard/dytox) copies the last token and draws the copy anew, so that nothing of it is
    left; here all tokens are drawn when the network is built, from the same distribution (truncated normal, std 0.02).
    Its encoder is ConViT's; here the blocks are the configured ones.

    tokens_per_task  tokens of each task; 1 as published
    ffn              factory ffn(shape, layer=) of the task attention block
    classes, tasks, inputs, block, norm and positions are those of `GrowingClassifier`
    """

    def __init__(
        self,
        shape: Shape,
        *,
        classes: PositiveInt,
        tasks: PositiveInt,
        inputs: Callable[..., Inputs],
        block: Callable[..., Block],
        norm: Callable[..., Norm],
        ffn: Callable[..., FeedForward],
        positions: Positions | None = None,
        tokens_per_task: PositiveInt = 1,
    ) -> None:
        super().__init__(
            shape, classes=classes, tasks=tasks, inputs=inputs, block=block, norm=norm, positions=positions
        )
        dim = shape.dim
        self.tab = TaskAttentionBlock(shape, norm=norm, ffn=ffn)
        self.tokens = nn.ParameterList(torch.empty(tokens_per_task, dim) for _ in range(tasks))
        self.heads = nn.ModuleList(TaskHead(dim, size, norm=norm) for size in self.sizes)
        self.divergence = nn.ModuleList(TaskHead(dim, size + 1, norm=norm) for size in self.sizes[1:])
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the start of training anew."""
        super().reset_parameters()
        for token in self.tokens:
            nn.init.trunc_normal_(token, std=INIT_STD)

    def list_parts(self, task: int) -> list[nn.Module | nn.Parameter]:
        """Its tokens and its head."""
        return [self.tokens[task], self.heads[task]]

    def list_divergence(self, task: int) -> list[nn.Module]:
        """Its divergence head; the first task has none."""
        return [self.divergence[task - 1]] if task else []

    def forward(
        self, inputs: Tensor, *, segments: Tensor | None = None, width: Width | None = None, trace: bool = False
    ) -> GrowingOutput:
        """Logits [B, K] of all classes, those to come `UNKNOWN`, and as `hidden` the newest task's e [B, C]."""
        x_BPC, context = self.encode(inputs, segments=segments, trace=trace, width=width)
        patches = self.tab.read_patches(self.norm(x_BPC), segments)
        # One task at a time, so that no older task's numbers depend on how many there are.
        e = [self._read_task(task, patches, context) for task in range(self.known)]
        newest, divergence = self.known - 1, None
        if self.training and self._diverges(newest):
            divergence = self.divergence[newest - 1](e[-1])
        return self._make_output(
            [head(e_BC) for head, e_BC in zip(self.heads, e, strict=False)], e[-1], divergence, context
        )

    def _read_task(self, task: int, patches: PatchKeys, context: ForwardContext) -> Tensor:
        """The embedding of one task, [B, C]."""
        rows = len(patches.k_BHPD)
        given = [token.expand(rows, 1, -1) for token in self.tokens[task]]
        read = [self.tab(token, self.norm(token), patches, context) for token in given]
        return torch.stack(read).mean(0).squeeze(1)
