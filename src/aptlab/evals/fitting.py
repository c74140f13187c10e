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
    """`data.windows` for as many multiples as text and model allow; the largest goes first, with a warning.

    Every multiple reads the same target tokens, so one that does not fit cannot be measured on fewer.
    Raises DataError when not even the smallest fits.
    """
    left = sorted(set(multiples))
    while longest is not None and len(left) > 1 and left[-1] * context > longest:
        log.warning("length %dx is left out: the model has positions for %d tokens only", left.pop(), longest)
    while True:
        try:
            return data.windows(context, multiples=left, tokens=tokens)
        except DataError as error:
            if len(left) <= 1:
                raise
            log.warning("length %dx is left out: %s", left.pop(), error)
