"""Numbers of tokens of a row of span corruption."""

from __future__ import annotations

from typing import NamedTuple


class SpanLengths(NamedTuple):
    """Numbers of tokens of one row: of its piece of text, of noise in it, of spans, of source and target."""

    raw: int
    noise: int
    spans: int
    source: int
    target: int
