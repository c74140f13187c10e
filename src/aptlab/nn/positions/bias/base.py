"""What every bias of distances shares. Legend: B batch, H heads, T queries, S keys."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from aptlab.errors import ConfigError
from aptlab.nn.decay import Undecayed
from aptlab.nn.init import OwnsInit, reset_tree

Formula = Callable[[Tensor, Tensor], Tensor]


class PositionBias(OwnsInit, Undecayed, abc.ABC):
    """A module whose output is added to the attention scores; built as factory(heads=, head_dim=, layer=).

    relative    what it adds depends on distances alone
    shared      one module serves all layers
    contextual  it reads queries and keys, not positions
    """

    relative: ClassVar[bool] = True
    shared: ClassVar[bool] = True
    contextual: ClassVar[bool] = False

    def make_symmetric(self) -> None:
        """Serve attention that sees tokens on both sides from now on. ConfigError for a bias that cannot."""
        raise ConfigError(
            f"bias: {type(self).__name__} counts from a token to earlier ones and says nothing of later ones, which an "
            "encoder sees; use bias=none, alibi, kerple, t5 or learned"
        )

    def count_flops(self, keys: float) -> float:
        """FLOPs per token of products, for `keys` seen keys; additions are not counted."""
        del keys
        return 0.0

    def reset_parameters(self, std: float, depth: int) -> None:
        """Tables start as N(0, std)."""
        reset_tree(self, std, depth)


class ScoreBias(PositionBias, abc.ABC):
    """Adds f(head, m - n) to the logit of a query at position m and a key at position n.

    A subclass gives f once, as `formula`: the dense bias and the `score_mod` of FlexAttention both come from it. The
    distance of a key after its query counts as 0; masks hide it. Everything is float32 (float64 in a float64 module).

    A symmetric one (`make_symmetric`) adds f(head, |m - n|). T5's encoder has other numbers for keys after the query.
    """

    symmetric = False

    def __init__(self, *, heads: int) -> None:
        super().__init__()
        self.heads = heads
        for name, tensor in self.constants().items():
            self.register_buffer(name, tensor, persistent=False)

    @abc.abstractmethod
    def formula(self) -> Formula:
        """f of broadcasting integer tensors (head, distance >= 0); reads the parameters now, not when called."""

    def make_symmetric(self) -> None:
        """Count distances to both sides from now on."""
        self.symmetric = True

    def measure_distance(self, offset: Tensor) -> Tensor:
        """The distance m - n that counts, at least 0."""
        return offset.abs() if self.symmetric else offset.clamp_min(0)

    def constants(self) -> dict[str, Tensor]:
        """Buffers that follow from the arguments; they follow the device, never the dtype."""
        return {}

    def forward(self, queries_BT: Tensor, keys_BS: Tensor) -> Tensor:
        """The bias of integer positions [B or 1, T] and [B or 1, S], float32 [B or 1, H, T, S]."""
        distance = self.measure_distance(queries_BT.unsqueeze(2) - keys_BS.unsqueeze(1)).unsqueeze(1)
        return self.formula()(torch.arange(self.heads, device=distance.device).view(1, -1, 1, 1), distance)

    def score_mod(self, queries_BT: Tensor, keys_BS: Tensor) -> Callable[..., Tensor]:
        """The same as a function of one score for `torch.nn.attention.flex_attention`, which never makes [T, S]."""
        add = self.formula()

        def at(positions: Tensor, row: Tensor, index: Tensor) -> Tensor:
            return positions[0][index] if positions.shape[0] == 1 else positions[row, index]

        def plus(score: Tensor, b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor) -> Tensor:
            distance = self.measure_distance(at(queries_BT, b, q_idx) - at(keys_BS, b, kv_idx))
            return score + add(h, distance)

        return plus

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ScoreBias:
        super()._apply(fn, recurse)
        for name, tensor in self.constants().items():
            setattr(self, name, tensor.to(getattr(self, name).device))
        return self


class NoBias(ScoreBias):
    """Nothing is added to the scores; the model leaves it out."""

    def __init__(self, *, heads: int, head_dim: int, layer: int) -> None:
        del head_dim, layer
        super().__init__(heads=heads)

    def formula(self) -> Formula:
        """f = 0."""
        return lambda head, distance: torch.zeros_like(head * distance, dtype=torch.float32)
