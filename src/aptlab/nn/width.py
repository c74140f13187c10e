"""Widths of nested layers: the share of its hidden units that a layer works with. No torch."""

from __future__ import annotations

import math
from collections.abc import Sequence

from aptlab.errors import ConfigError

FULL = 1.0
Width = float | Sequence[float]  # one for all blocks, or one for each of them (Mix'n'Match)


def format_width(width: Width) -> str:
    """A width as a user writes it: `0.5`, or `[1,0.5]` for a list."""
    return f"{width:g}" if isinstance(width, int | float) else f"[{','.join(f'{one:g}' for one in width)}]"


def spread_width(width: Width, depth: int) -> tuple[float, ...]:
    """The width of each block. ConfigError for what is no share, and for a list of another length."""
    each = (width,) * depth if isinstance(width, int | float) else tuple(width)
    if len(each) != depth:
        raise ConfigError(
            f"width={format_width(each)} has {len(each)} numbers for {depth} blocks; give one for each block, or one "
            "number for all"
        )
    if wrong := [one for one in each if not 0 < one <= FULL]:
        raise ConfigError(f"width={wrong[0]:g} is no share of a layer's hidden units; give a number in (0, 1]")
    return tuple(float(one) for one in each)


def merge_widths(layers: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """The widths that all nested layers have, largest first; (1.0,) where no layer is nested.

    A layer of one width, as attention, works in full at any of them.
    """
    nested = [set(widths) for widths in layers if len(widths) > 1]
    return tuple(sorted(set.intersection(*nested), reverse=True)) if nested else (FULL,)


def check_width(width: Width, layers: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """The width of each block, of which `layers` has the widths. ConfigError for one that a block does not have."""
    each = spread_width(width, len(layers))
    for index, (one, widths) in enumerate(zip(each, layers, strict=True)):
        if one != FULL and one not in widths:
            raise ConfigError(f"width={format_width(width)}: block {index} {describe_widths(widths)}")
    return each


def describe_widths(widths: Sequence[float]) -> str:
    """What to say of a block that lacks a width, after its name."""
    if len(widths) < 2:
        return "has no nested layer, so it works in full alone; ffn=matformer objective=elastic trains several widths"
    return f"has the widths {', '.join(f'{width:g}' for width in widths)}; use one of them"


def count_units(hidden: int, width: float) -> int:
    """width · hidden, which must be a whole number of units: else ConfigError with those that are near."""
    units = width * hidden
    if math.isclose(units, whole := round(units), rel_tol=1e-9) and whole:
        return whole
    near = [number for number in (math.floor(units), math.ceil(units)) if number]
    raise ConfigError(
        f"width {width:g} of a hidden size {hidden} is {units:g} units, and a slice has a whole number of them; use "
        + " or ".join(f"{number / hidden:.6g} ({number} units)" for number in near)
        + ", or another size"
    )
