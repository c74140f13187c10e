"""What an eval leaves behind: tables on the terminal, eval.json, figures and files in its folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aptlab.evals.base import Measurement
from aptlab.runs.atomic import write_text
from aptlab.runs.record import write_json_record
from aptlab.shown import print_drawn, print_shown

RESULTS = "eval.json"


def print_tables(measurement: Measurement) -> None:
    """Every table, in order."""
    for table in measurement.tables:
        print_drawn(table)


def write_measurement(measurement: Measurement, folder: Path, head: Mapping[str, Any]) -> None:
    """Write eval.json, the files and the figures, and print where they are.

    `head` are the plain values with which eval.json begins; the measurement's facts and rows follow. What can be read
    by a program is on disk before the first figure is drawn. Raises AptlabError when a file cannot be written.
    """
    write_json_record(folder / RESULTS, {**head, **measurement.facts, **measurement.rows})
    for name, text in measurement.files.items():
        write_text(folder / name, text)
    for name, draw in measurement.figures.items():
        draw(folder / name)
        print_shown(f"figure   {folder / name}")
    others = f", {' and '.join(measurement.files)} beside it" if measurement.files else ""
    print_shown(f"results  {folder / RESULTS}{others}")
