"""Options that several evals share: lengths in tokens, depths in a prompt. No torch."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from aptlab.errors import ConfigError

log = logging.getLogger("aptlab")
DEPTHS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)

if TYPE_CHECKING:
    from aptlab.models import Decoder


def choose_lengths(lengths: Sequence[int] | None, multiples: Sequence[int], trained_context: int) -> tuple[int, ...]:
    """The lengths that were named, or multiples of the trained context; rising, each once."""
    found = [multiple * trained_context for multiple in multiples] if lengths is None else lengths
    if not found:
        raise ConfigError("lengths=[] measures nothing; choose lengths such as lengths=[512,1024]")
    return tuple(sorted(set(found)))


def keep_reachable(lengths: Sequence[int], net: Decoder) -> tuple[int, ...]:
    """Rising lengths without those that the model has no positions for, with one warning; at least the shortest."""
    kept = tuple(length for length in lengths if length <= net.max_positions) or (lengths[0],)
    if gone := lengths[len(kept) :]:
        names = ", ".join(f"{length:,}" for length in gone)
        log.warning("left out: %s tokens, for the model has %s positions", names, f"{net.max_positions:,}")
    return kept


def check_longest(lengths: Sequence[int], net: Decoder, trained_context: int) -> None:
    """ConfigError for a length that the model has no positions for; `lengths` rise."""
    if lengths[-1] > net.max_positions:
        raise ConfigError(
            f"lengths: {lengths[-1]:,} tokens are more than the {net.max_positions:,} positions that the model "
            f"has; ask for at most these, as in lengths=[{min(trained_context, net.max_positions)}]"
        )


def sort_depths(depths: Sequence[float]) -> tuple[float, ...]:
    """Depths of an answer in its prompt, 0 to 1; rising, each once."""
    if not depths:
        raise ConfigError("depths=[] measures nothing; choose depths such as depths=[0,0.5,1]")
    return tuple(sorted({float(depth) for depth in depths}))
