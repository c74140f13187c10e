"""How rows are made of a token stream, in which order, and which segments are measured.

What a config names is here and loads no numpy; tables and orders are in the modules of their own.
"""

from aptlab.data.rows.base import BatchPlan, RowKind, Rows, RowTable, SegmentPlan
from aptlab.data.rows.mixed import Mixed
from aptlab.data.rows.packed import Packed
from aptlab.data.rows.segments import Segments
from aptlab.data.rows.span_corruption import SpanCorruption

__all__ = [
    "BatchPlan",
    "Mixed",
    "Packed",
    "RowKind",
    "RowTable",
    "Rows",
    "SegmentPlan",
    "Segments",
    "SpanCorruption",
]
