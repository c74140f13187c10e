"""What a module that rotates queries and keys owes. Legend: B batch, H heads, T tokens, D head dim, P pairs."""

from __future__ import annotations

import abc

from torch import Tensor

from aptlab.nn.decay import Undecayed
from aptlab.nn.positions.rope import Rope
from aptlab.nn.positions.rotary.angles import Angles
from aptlab.ops.rotary import rotate_pairs
from aptlab.ops.rotary_heads import HeadNorm, RotationArgs


class Rotary(Undecayed, abc.ABC):
    """Rotates heads by the angles of a rule; the model has one for each rule that its layers use.

    adaptive     whether angles depend on the length of a token's sequence
    temperature  factor on the logits that is the same for all tokens; what differs is in `Angles.scale`
    simple       whether the kernel can do it: one set of frequencies for every head of every token
    """

    rule: Rope
    adaptive: bool
    temperature: float
    simple: bool = False

    @abc.abstractmethod
    def angles(self, positions: Tensor, lengths_BT: Tensor | None = None) -> Angles:
        """Angles of integer positions [B, T] or [B, T, N]; lengths of the sequences that the tokens belong to."""

    def kernel_args(self, positions_BT: Tensor, queries: int, norm: HeadNorm | None) -> RotationArgs:
        """What the kernel needs to rotate heads of which the first `queries` are queries; where `simple`."""
        raise AssertionError(f"{type(self).__name__} is not for the kernel")

    def rotate(self, x_BHTD: Tensor, angles: Angles) -> Tensor:
        """Rotate in float32 and round once to the input's dtype."""
        return rotate_pairs(x_BHTD, angles.cos, angles.sin, layout=self.rule.layout)
