"""Rules for positions of two or three numbers: pictures (height, width) and films (time, height, width).

A token of text has one number. `spread` says what it stands for: the pixels of a picture `width` wide read row by row,
a film of frames `grid`, or for mrope the same number in every stream, which is plain RoPE.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any, ClassVar

from aptlab.errors import ConfigError
from aptlab.limits import PositiveInt
from aptlab.nn.positions.rope.base import Frequencies, Rotation, compute_standard_frequencies
from aptlab.nn.positions.rope.hf import HFForm, make_hf_parameters

Coefficients = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Rotation2D(Rotation, abc.ABC):
    """Two streams, (height, width). width  of the picture that text positions are read as, row by row"""

    streams: ClassVar[int] = 2
    width: PositiveInt | None = 64

    def spread(self, positions: Any) -> tuple[Any, ...]:
        """(height, width) of text positions."""
        if self.width is None:
            raise ConfigError("width=null leaves text without height; set width, or give positions [B, T, 2]")
        return positions // self.width, positions % self.width


@dataclass(frozen=True, kw_only=True)
class Rotation3D(Rotation, abc.ABC):
    """Three streams, (time, height, width). grid  height and width of the frames that text positions are read as"""

    streams: ClassVar[int] = 3
    grid: tuple[int, int] | None = (16, 16)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.grid is not None:
            object.__setattr__(self, "grid", tuple(self.grid))
            if len(self.grid) != 2 or min(self.grid) < 1:
                raise ConfigError(f"grid={list(self.grid)} must be [height, width] of a frame, such as [16, 16]")

    def spread(self, positions: Any) -> tuple[Any, ...]:
        """(time, height, width) of text positions."""
        if self.grid is None:
            raise ConfigError("grid=null leaves text without a frame; set grid, or give positions [B, T, 3]")
        height, width = self.grid
        return positions // (height * width), positions // width % height, positions % width


def split_evenly(base: float, head_dim: int, parts: int, name: str) -> Frequencies:
    """The standard frequencies of a head of D / parts dims, once."""
    block = 2 * parts
    if head_dim < block or head_dim % block:
        below, above = head_dim // block * block, (head_dim // block + 1) * block
        nearest = f"{below}, {above}" if below else f"{above}"
        raise ConfigError(
            f"head_dim={head_dim} is not divisible by {block}, and {name} rotates a head in blocks of {block} "
            f"dims; nearest: {nearest}"
        )
    return compute_standard_frequencies(base, head_dim // parts)


@dataclass(frozen=True, kw_only=True)
class Axial2D(Rotation2D):
    """Half of the pairs rotate by height, half by width, with equal frequencies (as in Qwen2-VL's picture encoder)."""

    def inv_freq(self, head_dim: int) -> Frequencies:
        """The same D/4 frequencies for height and for width, [P]."""
        return split_evenly(self.base, head_dim, 2, "axial2d") * 2

    def combine(self, head_dim: int) -> Coefficients:
        """Height for the first half of the pairs, width for the second."""
        return ((1, 0),) * (head_dim // 4) + ((0, 1),) * (head_dim // 4)


@dataclass(frozen=True, kw_only=True)
class Axial3D(Rotation3D):
    """A third of the pairs each for time, height and width; what does not divide by three goes to time.

    `Axial2D` with one more stream; the frequencies of each are those of a head of its own width. Qwen2-VL's films use
    sections of one set of frequencies instead: `MRope`.
    """

    def inv_freq(self, head_dim: int) -> Frequencies:
        """Each stream has those of a head as wide as its own pairs, [P]."""
        time, space = self._pairs(head_dim)
        return (
            compute_standard_frequencies(self.base, 2 * time) + compute_standard_frequencies(self.base, 2 * space) * 2
        )

    def combine(self, head_dim: int) -> Coefficients:
        """Time, then height, then width."""
        time, space = self._pairs(head_dim)
        return ((1, 0, 0),) * time + ((0, 1, 0),) * space + ((0, 0, 1),) * space

    def _pairs(self, head_dim: int) -> tuple[int, int]:
        if head_dim < 6 or head_dim % 2:
            raise ConfigError(f"head_dim={head_dim}: three axes need an even head of at least 6 dims")
        space = head_dim // 6
        return head_dim // 2 - 2 * space, space


@dataclass(frozen=True, kw_only=True)
class SectionedRotation(Rotation3D, abc.ABC):
    """Each pair of one set of frequencies takes time, height or width; for text all three are equal: plain RoPE.

    sections  pairs of each; None = by `space`
    """

    space: ClassVar[float]  # share of the pairs that height has by default, and width
    grid: tuple[int, int] | None = None
    sections: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sections is not None:
            object.__setattr__(self, "sections", tuple(self.sections))

    @property
    def plain_for_text(self) -> bool:
        """Without a grid, text has the same number in every stream."""
        return self.grid is None

    def to_hf(self, head_dim: int, *, nested: bool = False) -> HFForm:
        """The default rule, which it is for text."""
        del head_dim, nested
        note = "rope=mrope is written as the default rope: for text they are the same"
        return HFForm(make_hf_parameters("default", float(self.base)), note)

    def spread(self, positions: Any) -> tuple[Any, ...]:
        """The same number three times, or a place in a film if `grid` says so."""
        return (positions,) * 3 if self.grid is None else super().spread(positions)

    def inv_freq(self, head_dim: int) -> Frequencies:
        """One set for the whole head, [P]."""
        self.counts(head_dim)
        return compute_standard_frequencies(self.base, head_dim)

    @abc.abstractmethod
    def combine(self, head_dim: int) -> Coefficients:
        """Which stream each pair takes, [P][3]."""

    def counts(self, head_dim: int) -> tuple[int, ...]:
        """Pairs of each stream."""
        pairs = head_dim // 2
        if self.sections is None:
            return self._default(pairs)
        if len(self.sections) != 3 or sum(self.sections) != pairs or min(self.sections) < 0:
            raise ConfigError(
                f"sections={list(self.sections)} must be three numbers of pairs with sum {pairs} (half of "
                f"head_dim={head_dim}); null takes {', '.join(map(str, self._default(pairs)))}"
            )
        return self.sections

    def _default(self, pairs: int) -> tuple[int, int, int]:
        space = int(pairs * self.space)
        return pairs - 2 * space, space, space


@dataclass(frozen=True, kw_only=True)
class MRope(SectionedRotation):
    """The fast pairs take time, the next height, the slow ones width (Wang et al. 2024, Qwen2-VL, arXiv:2409.12191).

    sections  pairs of each; None = 16 : 24 : 24 of the head
    """

    space: ClassVar[float] = 24 / 64

    def combine(self, head_dim: int) -> Coefficients:
        """Time, then height, then width."""
        time, height, width = self.counts(head_dim)
        return ((1, 0, 0),) * time + ((0, 1, 0),) * height + ((0, 0, 1),) * width


@dataclass(frozen=True, kw_only=True)
class MRopeInterleaved(SectionedRotation):
    """Height on pairs 1, 4, 7 …, width on 2, 5, 8 …, time on the rest, as in Qwen3-VL (arXiv:2511.21631).

    Every stream has fast and slow pairs, where `mrope` gives the fast ones to time. sections  None = 24 : 20 : 20
    """

    space: ClassVar[float] = 20 / 64

    def counts(self, head_dim: int) -> tuple[int, ...]:
        """Pairs of each stream; height and width have every third pair at most."""
        time, height, width = super().counts(head_dim)
        pairs = head_dim // 2
        most = len(range(1, pairs, 3)), len(range(2, pairs, 3))
        if height > most[0] or width > most[1]:
            raise ConfigError(
                f"sections={[time, height, width]}: height and width have every third of {pairs} pairs, "
                f"{most[0]} and {most[1]} pairs at most; use {list(self._default(pairs))} or rope=mrope"
            )
        return time, height, width

    def combine(self, head_dim: int) -> Coefficients:
        """Height and width on every third pair each, time on the rest."""
        _, height, width = self.counts(head_dim)
        rows = [(1, 0, 0)] * (head_dim // 2)
        for first, count, row in ((1, height, (0, 1, 0)), (2, width, (0, 0, 1))):
            for k in range(count):
                rows[first + 3 * k] = row
        return tuple(rows)


@dataclass(frozen=True, kw_only=True)
class Kron2D(Rotation2D):
    """R_h (x) R_w on blocks of four dims, the seeds' 2-D form: rotates by (h + w) theta and by (h - w) theta.

    Written in the basis where it is two rotations; the change of basis is orthogonal and the same for queries and
    keys, so the projections absorb it. Published encoders use the block-diagonal sum, rope=axial2d.
    """

    def inv_freq(self, head_dim: int) -> Frequencies:
        """Each frequency twice, [P]."""
        return tuple(f for f in split_evenly(self.base, head_dim, 2, "kron2d") for _ in range(2))

    def combine(self, head_dim: int) -> Coefficients:
        """h + w and h - w in turn."""
        return ((1, 1), (1, -1)) * (head_dim // 4)


@dataclass(frozen=True, kw_only=True)
class Kron3D(Rotation3D):
    """R_t (x) R_h (x) R_w on blocks of eight dims, the seeds' 3-D form: rotates by (t ± h ± w) theta. See `Kron2D`."""

    def inv_freq(self, head_dim: int) -> Frequencies:
        """Each frequency four times, [P]."""
        return tuple(f for f in split_evenly(self.base, head_dim, 4, "kron3d") for _ in range(4))

    def combine(self, head_dim: int) -> Coefficients:
        """t + h + w, t + h - w, t - h + w and t - h - w in turn."""
        return ((1, 1, 1), (1, 1, -1), (1, -1, 1), (1, -1, -1)) * (head_dim // 8)


@dataclass(frozen=True, kw_only=True)
class Mixed2D(Rotation2D):
    """h · a + w · b with learned a and b per pair and key head (RoPE-Mixed, Heo et al. 2024, arXiv:2403.13298)."""

    rotary_class: ClassVar[str] = "aptlab.nn.positions.rotary:MixedRotary"
    frozen: bool = False

    def inv_freq(self, head_dim: int) -> Frequencies:
        """base^(-2i/D), from which learning starts, [P]."""
        return compute_standard_frequencies(self.base, head_dim)
