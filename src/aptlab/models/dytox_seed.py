"""Tokens and an attention of its own for each task. Legend: B rows, P patches, N tokens of a task, C dim, K classes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aptlab.limits import PositiveInt
from aptlab.models.classifier import INIT_STD, Inputs, average_tokens
from aptlab.models.growing import GrowingClassifier, TaskHead
from aptlab.models.output import GrowingOutput
from aptlab.nn.block import Block
from aptlab.nn.norm import Norm
from aptlab.nn.positions import Positions
from aptlab.nn.shape import Shape
from aptlab.nn.width import Width


class DyToxSeed(GrowingClassifier):
    """What the seeds of this project call DyTox; the published one is `DyTox`:

    x = norm(blocks(patches)),  y_t = Attention_t([x; tokens_t]) without its last N rows,  logits_t = head_t(mean_p y_t)

    Each task has N tokens and an attention of its own, in which tokens and patches read each other; what comes out is
    the sequence of the patches, the tokens are dropped. Where DyTox differs: one token a task, one attention for all
    tasks in which the token alone reads and is what comes out, a feed-forward and a residual behind it, and a
    divergence head. As in the seeds' code older tasks are frozen when one begins. That code asks which task a row is
    of, and has no head: here each task has one behind the mean of its sequence, and every known task is read, so that
    no row needs to say it.

    tokens_per_task  N; 5 in the seeds
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
        positions: Positions | None = None,
        tokens_per_task: PositiveInt = 5,
    ) -> None:
        super().__init__(
            shape, classes=classes, tasks=tasks, inputs=inputs, block=block, norm=norm, positions=positions
        )
        self.tokens = nn.ParameterList(torch.empty(tokens_per_task, shape.dim) for _ in range(tasks))
        self.attentions = nn.ModuleList(TokenAttention(shape) for _ in range(tasks))
        self.heads = nn.ModuleList(TaskHead(shape.dim, size, norm=norm) for size in self.sizes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the start of training anew."""
        super().reset_parameters()
        for token in self.tokens:
            nn.init.trunc_normal_(token, std=INIT_STD)

    def list_parts(self, task: int) -> list[nn.Module | nn.Parameter]:
        """Its tokens, its attention and its head."""
        return [self.tokens[task], self.attentions[task], self.heads[task]]

    def list_divergence(self, task: int) -> list[nn.Module]:
        """None: the seeds have no divergence head."""
        del task
        return []

    def forward(
        self, inputs: Tensor, *, segments: Tensor | None = None, width: Width | None = None, trace: bool = False
    ) -> GrowingOutput:
        """Logits [B, K] of all classes, those to come `UNKNOWN`, and as `hidden` the newest task's mean [B, C]."""
        x_BPC, context = self.encode(inputs, segments=segments, trace=trace, width=width)
        z_BPC = self.norm(x_BPC)
        # One task at a time, so that no older task's numbers depend on how many there are.
        e = [self._read_task(task, z_BPC, segments) for task in range(self.known)]
        return self._make_output([head(e_BC) for head, e_BC in zip(self.heads, e, strict=False)], e[-1], None, context)

    def _read_task(self, task: int, z_BPC: Tensor, segments: Tensor | None) -> Tensor:
        """The mean of the sequence that one task makes of the patches, [B, C]."""
        rows, patches, _ = z_BPC.shape
        joined_BSC = torch.cat((z_BPC, self.tokens[task].to(z_BPC.dtype).expand(rows, -1, -1)), 1)
        seen = None if segments is None else F.pad(segments != 0, (0, len(self.tokens[task])), value=True)
        y_BPC = self.attentions[task](joined_BSC, seen)[:, :patches]
        return average_tokens(y_BPC, segments)


class TokenAttention(nn.Module):
    """Self-attention of tokens and patches alike, y = O softmax(Q z (K z)^T / sqrt(D)) V z, every matrix with a bias.

    As `torch.nn.MultiheadAttention` computes it, which the seeds use; without a residual. [B, S, C] -> [B, S, C].
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads, _, head_dim = shape.head_sizes()
        self.qkv = nn.Linear(shape.dim, 3 * self.heads * head_dim)
        self.out = nn.Linear(self.heads * head_dim, shape.dim)

    def forward(self, z_BSC: Tensor, seen_BS: Tensor | None = None) -> Tensor:
        """y; what is not seen is read by nobody."""
        q, k, v = self.qkv(z_BSC).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mask = None if seen_BS is None else seen_BS[:, None, None, :]
        return self.out(F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2))
