"""The one place where the sizes of a model stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aptlab.errors import ConfigError
from aptlab.limits import PositiveInt, validate_limits


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes of a transformer, handed down by parents to every layer.

    dim       width of the residual stream
    depth     number of blocks
    heads     query heads
    hidden    inner width of the feed-forward layer; a list has one for each block
    kv_heads  key and value heads, null = heads (Ainslie et al. 2023, arXiv:2305.13245)
    head_dim  width of one head, null = dim / heads
    """

    dim: PositiveInt
    depth: PositiveInt
    heads: PositiveInt
    hidden: PositiveInt | tuple[PositiveInt, ...]
    kv_heads: PositiveInt | None = None
    head_dim: PositiveInt | None = None

    def __post_init__(self) -> None:
        validate_limits(self)
        if not isinstance(self.hidden, int):
            object.__setattr__(self, "hidden", check_hidden_sizes(self.hidden, self.depth))
        if self.head_dim is None:
            if self.dim % self.heads:
                raise ConfigError(
                    f"dim={self.dim} is not divisible by heads={self.heads}; "
                    f"nearest dims: {_neighbours(self.dim, self.heads)}, or set head_dim"
                )
            object.__setattr__(self, "head_dim", self.dim // self.heads)
        if self.kv_heads is None:
            object.__setattr__(self, "kv_heads", self.heads)
        heads, kv_heads, head_dim = self.head_sizes()
        if heads % kv_heads:
            divisors = [n for n in range(1, heads + 1) if heads % n == 0]
            raise ConfigError(f"kv_heads={kv_heads} does not divide heads={heads}; allowed: {divisors}")
        if head_dim % 2:
            raise ConfigError(
                f"head_dim={head_dim} is odd, and rotary pairs need an even one; "
                f"with heads={heads} use dim={heads * (head_dim + 1)}"
            )

    def count_hidden(self, layer: int) -> int:
        """Hidden units of the feed-forward of a block."""
        return self.hidden if isinstance(self.hidden, int) else self.hidden[layer]

    def head_sizes(self) -> tuple[int, int, int]:
        """(heads, kv_heads, head_dim), with what was null filled in."""
        assert self.kv_heads is not None
        assert self.head_dim is not None
        return self.heads, self.kv_heads, self.head_dim


def check_hidden_sizes(sizes: Sequence[int], depth: int) -> tuple[int, ...]:
    """One hidden size a block. ConfigError for a list of another length, and for what is no size."""
    if len(sizes) != depth:
        raise ConfigError(
            f"hidden={list(sizes)} has {len(sizes)} sizes for depth={depth} blocks; give one for each, or one number"
        )
    if wrong := [size for size in sizes if isinstance(size, bool) or not isinstance(size, int) or size < 1]:
        raise ConfigError(f"hidden={list(sizes)}: {wrong[0]!r} is no number of units; give whole numbers from 1 on")
    return tuple(sizes)


def _neighbours(dim: int, heads: int) -> str:
    low = dim // heads * heads
    return ", ".join(str(value) for value in (low, low + heads) if value > 0)
