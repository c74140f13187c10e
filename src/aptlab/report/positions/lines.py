"""The numbers behind a figure: named columns for each curve, and the CSV that keeps every digit of them."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aptlab.report.positions.rotary_parts import Array, RotaryPart
from aptlab.shown import show_csv_cell


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One curve. number  chooses its colour, place  its dashes; columns  equally long numbers or words by name."""

    name: str
    columns: Mapping[str, Any]
    part: str = ""
    number: int = 0
    place: int = 0

    @property
    def label(self) -> str:
        return f"{self.name}, {self.part}" if self.part else self.name

    def __getitem__(self, column: str) -> Array:
        return np.asarray(self.columns[column])


Tables = Mapping[str, Sequence[Curve]]  # one CSV each: "" is that of the analysis itself


def make_curve(
    rotary_part: RotaryPart, columns: Mapping[str, Any], *, part: str | None = None, place: int | None = None
) -> Curve:
    """The columns of one part of a rule."""
    return Curve(
        name=rotary_part.name,
        columns=columns,
        part=rotary_part.part if part is None else part,
        number=rotary_part.number,
        place=rotary_part.place if place is None else place,
    )


def format_curves_csv(lines: Sequence[Curve]) -> str:
    """One row per number of every curve, the curve's names in front; floats are written so that they read back."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = list(lines[0].columns) if lines else []
    writer.writerow(["rule", "part", *names])
    for line in lines:
        for row in zip(*(line[name].tolist() for name in names), strict=True):
            writer.writerow(
                [
                    show_csv_cell(line.name),
                    show_csv_cell(line.part),
                    *(repr(cell) if isinstance(cell, float) else cell for cell in row),
                ]
            )
    return out.getvalue()


def make_distance_bins(longest: int, *, count: int = 120, most: int = 64) -> list[Array]:
    """Whole distances from 1 to `longest` in bins of equal width on a logarithmic axis.

    A bin with more than `most` distances is told by so many of them, spread by the golden ratio: equal steps would
    beat against the rotations of fast pairs.
    """
    edges = np.unique(np.ceil(np.geomspace(1, longest + 1, count + 1) - 1e-9).astype(np.int64))
    golden = (np.arange(most) * 0.6180339887498949) % 1
    found = []
    for low, high in itertools.pairwise(edges.tolist()):
        inside = np.arange(low, high) if high - low <= most else np.unique(low + (golden * (high - low)).astype(int))
        found.append(inside)
    return found


def summarize_bins(groups: Sequence[Array], values: Array) -> dict[str, Array]:
    """Columns distance, mean, low and high of values that belong to the joined distances of `bins`."""
    ends = np.cumsum([len(group) for group in groups])
    parts = np.split(values, ends[:-1])
    return {
        "distance": np.array([np.exp(np.log(group).mean()) for group in groups]),
        "mean": np.array([part.mean() for part in parts]),
        "low": np.array([part.min() for part in parts]),
        "high": np.array([part.max() for part in parts]),
    }


def join_names(names: Iterable[str], most: int = 4) -> str:
    """`a, b, c and 2 more`."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
