"""Absolute positions added to the token embedding. Legend: B batch, T tokens, C dim, P = C/2 pairs.

A module here is built as `factory(dim=C)` and called with integer positions [B or 1, T]; it returns what is added,
[B or 1, T, C], or None for nothing.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn

from aptlab.errors import AptlabError, ConfigError
from aptlab.limits import Positive, PositiveInt
from aptlab.nn.decay import Undecayed
from aptlab.nn.init import OwnsInit, reset_tree

STEP = 256
LEVELS = 3
LONGEST = STEP**LEVELS  # positions that the tables cover: 16.7 million


class AddedPositions(OwnsInit, Undecayed, abc.ABC):
    """What is added to the token embedding, by position; built as factory(dim=C).

    relative       whether nothing is said of where in the text a token stands
    adds           False where nothing is added, and the model leaves it out
    max_positions  positions that it has
    """

    relative: ClassVar[bool] = False
    adds: ClassVar[bool] = True
    max_positions: int = LONGEST

    @abc.abstractmethod
    def forward(self, positions_BT: Tensor) -> Tensor | None:
        """What is added at integer positions [B or 1, T], [B or 1, T, C]; None = nothing."""

    def reset_parameters(self, std: float, depth: int) -> None:
        """Tables start as N(0, std)."""
        reset_tree(self, std, depth)


class NoEmbed(AddedPositions):
    """Nothing is added to the token embedding."""

    relative: ClassVar[bool] = True
    adds: ClassVar[bool] = False

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, positions_BT: Tensor) -> None:
        """None."""
        del positions_BT


class LearnedPositions(AddedPositions):
    """Row `position` of a learned table [length, C] (Gehring et al. 2017, arXiv:1705.03122; as in GPT-2).

    A position beyond the table is an error; nothing is learned about it. Starts as N(0, 0.02).
    """

    def __init__(self, dim: int, *, length: PositiveInt) -> None:
        super().__init__()
        self.dim, self.length = dim, length
        self.max_positions = length
        self.embed = nn.Embedding(length, dim)
        nn.init.normal_(self.embed.weight, std=0.02)

    def forward(self, positions_BT: Tensor) -> Tensor:
        """Rows of the table, [B or 1, T, C] in its dtype."""
        check_embed_positions(
            positions_BT,
            self.length,
            f"length={self.length} has no row for it; convert the model with `embed=none rope=standard` "
            f"(then fine-tune), or train with length larger than the last position",
        )
        return self.embed(positions_BT)

    def extra_repr(self) -> str:
        """Sizes, for printing."""
        return f"length={self.length}, dim={self.dim}"


class SinusoidalPositions(AddedPositions):
    """Sines and cosines of fixed wavelengths (Vaswani et al. 2017, arXiv:1706.03762, section 3.5).

        PE(n, 2i) = scale · sin(n · base^(-2i/C))      PE(n, 2i + 1) = scale · cos(n · base^(-2i/C))

    The paper multiplies token embeddings by sqrt(C), which makes their root mean square 1; aptlab starts them at 0.02,
    so `scale` = 0.02 is the paper's ratio of the two, and 1 is its equation as it stands.

    Exact at any of 16.7 million positions: n is split into three digits of base 256, whose sines and cosines were
    built in float64 and stored in float32, and the parts are joined by complex products. Tables take 3 · C KiB
    (a whole table of ten million positions would take 40 GB at C = 1024). Returns float32.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, dim: int, *, base: Positive = 10_000.0, scale: Positive = 0.02) -> None:
        super().__init__()
        if dim % 2:
            raise ConfigError(f"dim={dim} is odd, and sinusoidal positions need pairs; use dim={dim + 1}")
        if base <= 1:
            raise ConfigError(f"base={base} must be larger than 1, so that later pairs rotate slower; e.g. 10000")
        self.dim, self.base, self.scale = dim, base, scale
        for name, table in self._tables().items():
            self.register_buffer(name, table, persistent=False)

    def _tables(self) -> dict[str, Tensor]:
        """cos and sin of digit · 256^level · theta, [3, 256, P]."""
        exponents_P = torch.arange(0, self.dim, 2, dtype=torch.float64, device="cpu") / self.dim
        digits_N1 = torch.arange(STEP, dtype=torch.float64, device="cpu").unsqueeze(1)
        levels_L11 = STEP ** torch.arange(LEVELS, dtype=torch.float64, device="cpu").view(-1, 1, 1)
        angles_LNP = levels_L11 * digits_N1 * self.base**-exponents_P
        return {"cos": angles_LNP.cos().float(), "sin": angles_LNP.sin().float()}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> SinusoidalPositions:
        """Follow the device, never the dtype: bfloat16 tables ruin far positions."""
        device = fn(torch.empty(0, device=self.cos.device)).device
        for name, table in self._tables().items():
            setattr(self, name, table.to(device))
        return self

    def forward(self, positions_BT: Tensor) -> Tensor:
        """PE of each position, float32 [B or 1, T, C]."""
        check_embed_positions(positions_BT, LONGEST, f"embed=sinusoidal is exact below {LONGEST}")
        cos_BTP, sin_BTP = self.cos[0][positions_BT % STEP], self.sin[0][positions_BT % STEP]
        for level in range(1, LEVELS):
            digit_BT = positions_BT.div(STEP**level, rounding_mode="floor") % STEP
            cos, sin = self.cos[level][digit_BT], self.sin[level][digit_BT]
            cos_BTP, sin_BTP = cos_BTP * cos - sin_BTP * sin, sin_BTP * cos + cos_BTP * sin
        return self.scale * torch.stack((sin_BTP, cos_BTP), dim=-1).flatten(-2)

    def extra_repr(self) -> str:
        """Sizes and base, for printing."""
        return f"dim={self.dim}, base={self.base:g}, scale={self.scale:g}"


def check_embed_positions(positions_BT: Tensor, length: int, way_out: str) -> None:
    """AptlabError unless all positions are in [0, length).

    Read on the host where that is free; elsewhere (an accelerator, a compiled graph) the device itself stops.
    """
    if torch.compiler.is_compiling() or positions_BT.device.type != "cpu":
        inside = ((positions_BT >= 0) & (positions_BT < length)).all()
        torch._assert_async(inside, f"a position is outside [0, {length}): {way_out}")
        return
    if positions_BT.numel() == 0:
        return
    low, high = int(positions_BT.min()), int(positions_BT.max())
    if low < 0:
        raise AptlabError(f"position {low} is negative; count from 0 at the first real token of each row")
    if high >= length:
        raise AptlabError(f"position {high} is outside [0, {length}): {way_out}")
