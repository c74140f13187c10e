"""The multiples of the trained context that a text is long enough for."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from aptlab.errors import DataError

log = logging.getLogger("aptlab")
TOKENS = 65_536


def fit_windows(
    data: Any, *, context: int, multiples: Sequence[int], tokens: int = TOKENS, longest: int | None = None
) -> Any:
    """`data.windows` for as many multiples as text and model allow; the largest go first, with one warning.

    Every multiple reads the same target tokens, so one that does not fit cannot be measured on fewer.
    Raises DataError when not even the smallest fits.
    """
    left = sorted(set(multiples))
    gone: list[int] = []
    while longest is not None and len(left) > 1 and left[-1] * context > longest:
        gone.append(left.pop())
    warn_left_out(gone, f"the model has positions for {longest} tokens only")
    gone, reason = [], ""
    while True:
        try:
            windows = data.windows(context, multiples=left, tokens=tokens)
        except DataError as error:
            if len(left) <= 1:
                raise
            gone.append(left.pop())
            reason = str(error)
        else:
            warn_left_out(gone, reason)
            return windows


def warn_left_out(multiples: Sequence[int], reason: str) -> None:
    """One line for all multiples that are left out for the same reason."""
    if multiples:
        names = ", ".join(f"{multiple}x" for multiple in sorted(multiples))
        log.warning("length%s left out: %s", f" {names} is" if len(multiples) == 1 else f"s {names} are", reason)
