"""The learning memory of rows whose chunks and documents end at different steps.

Legend: B rows, T tokens of a piece, H heads, D head dim, E hidden units of the memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from aptlab.nn.decay import Undecayed
from aptlab.nn.memory.blocks import BlockPlaces, choose_rows
from aptlab.nn.memory.mlp import Carried, MemoryInputs, MLPWeights, update_memory


class Learner(NamedTuple):
    """The memory of a row: weights at the start of its chunk, and what it has learned in it."""

    reference: MLPWeights
    carried: Carried

    @classmethod
    def read(cls, fields: Sequence[Tensor]) -> Learner:
        """That of the six fields of a state."""
        reference, now, push = (MLPWeights(*fields[begin : begin + 2]) for begin in (0, 2, 4))
        return cls(reference, Carried(now, push))

    def flat(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """The six fields of a state."""
        (first, second), ((now_first, now_second), (push_first, push_second)) = self
        return first, second, now_first, now_second, push_first, push_second


class StartWeights(Undecayed):
    """Weights of the memory at the start of a document, W1 [H, E, D] and W2 [H, D, E]; no weight decay."""

    def __init__(self, heads: int, dims: int, hidden: int) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.empty(heads, hidden, dims))
        self.second = nn.Parameter(torch.empty(heads, dims, hidden))
        self.reset()

    def reset(self) -> None:
        """N(0, 1/D) and N(0, 1/E)."""
        for weight in (self.first, self.second):
            nn.init.normal_(weight, std=weight.shape[-1] ** -0.5)

    def learner(self, like: Learner) -> Learner:
        """The memory of rows that begin a document, in the dtype and for the rows of another."""
        kind, rows = like.reference.first.dtype, len(like.reference.first)
        weights = MLPWeights(*(x.to(kind).expand(rows, *x.shape) for x in (self.first, self.second)))
        return Learner(weights, Carried(weights, MLPWeights(*(torch.zeros_like(x) for x in weights))))


def is_idle(mask_BT: Tensor) -> bool:
    """Whether no token is of a kind; looked at where that needs no wait for a device."""
    return not torch.compiler.is_compiling() and mask_BT.device.type == "cpu" and not bool(mask_BT.any())


def learn_first(
    inputs: MemoryInputs, learner: Learner, begin: Learner, blocks: BlockPlaces
) -> tuple[Tensor, Carried, Learner]:
    """Reads of the open chunk's tokens and of new documents', and the memory after the one and the other.

    Other tokens, padding too, read 0. What new documents read is always computed: a weight without a gradient on one
    rank stops the others.
    """
    last = blocks.last & blocks.fresh
    with torch.autocast(inputs.q.device.type, enabled=False):
        new, begun = update_memory(inputs, begin.reference, begin.carried, chain_tokens(blocks, blocks.fresh), last)
        started, new = Learner(begin.reference, begun), torch.where(blocks.fresh[:, None, :, None], new, 0.0)
        if is_idle(blocks.open):
            return new, learner.carried, started
        chain_BTT = chain_tokens(blocks, blocks.open)
        read, opened = update_memory(inputs, learner.reference, learner.carried, chain_BTT, blocks.open)
        return torch.where(blocks.open[:, None, :, None], read, new), opened, started


def learn_later(inputs: MemoryInputs, opened: Carried, blocks: BlockPlaces) -> tuple[Tensor, Carried]:
    """Reads of the next chunk's tokens, and the memory after them."""
    with torch.autocast(inputs.q.device.type, enabled=False):
        return update_memory(inputs, opened.weights, opened, chain_tokens(blocks, blocks.later), blocks.later)


def chain_tokens(blocks: BlockPlaces, mask_BT: Tensor) -> Tensor:
    """The tokens of a mask up to each of its tokens, of the same document; bool [B, T, T]."""
    number_BT = blocks.places.number
    same = (number_BT.unsqueeze(2) == number_BT.unsqueeze(1)) & mask_BT.unsqueeze(2) & mask_BT.unsqueeze(1)
    return same.tril()


def choose_learner(before: Learner, opened: Carried, closed: Carried, begun: Learner, blocks: BlockPlaces) -> Learner:
    """The memory that a row has at the end of the piece.

    It stays in its chunk (opened), goes on to the next one (closed, of which opened is the start), or has begun a
    document (begun; the start of its chunk is that of the document).
    """
    going = Learner(
        choose_weights(blocks.crossed, opened.weights, before.reference),
        choose_carried(blocks.crossed, closed, opened),
    )
    return Learner(
        choose_weights(blocks.goes_on, going.reference, begun.reference),
        choose_carried(blocks.goes_on, going.carried, begun.carried),
    )


def choose_weights(mask_B: Tensor, yes: MLPWeights, no: MLPWeights) -> MLPWeights:
    """Rows of one where the mask is set, of the other elsewhere."""
    return MLPWeights(*(choose_rows(mask_B, *pair) for pair in zip(yes, no, strict=True)))


def choose_carried(mask_B: Tensor, yes: Carried, no: Carried) -> Carried:
    """Rows of one where the mask is set, of the other elsewhere."""
    return Carried(*(choose_weights(mask_B, *pair) for pair in zip(yes, no, strict=True)))
