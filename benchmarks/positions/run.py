"""Eight laws of positions on every kind that aptlab and five other projects offer: one table.

    python benchmarks/positions/run.py                  all that is installed; the README beside this says how
    python benchmarks/positions/run.py --only aptlab    one project, printed and not written

Writes benchmarks/results/positions_invariance.md.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import importlib.util
import math
import os
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: tiny models lose by a second thread

import torch

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from known_bad import KNOWN_BAD, PINS
from memory import HEAD_DIM, memory_rows

from aptlab.testing.invariance import LAWS, LawResult, Subject, measure_law
from aptlab.testing.precision import POSITIONS, measure_errors_at
from common import table, write

PROJECTS = ("aptlab", *PINS)
PACKAGES = {project: project.replace("-", "_") for project in PROJECTS}
FAR_KINDS = {
    "aptlab": ("rope=standard", "rope=yarn", "rope=irope", "rope=xpos", "rope=longrope"),
    "transformers": ("default", "yarn", "llama4"),
    "rotary-embedding-torch": ("lang",),
    "x-transformers": ("rotary", "xpos"),
    "torchscale": ("xpos",),
    "torchtune": ("rope",),
}
NARROW = {"torchscale": 8, "torchtune": 8}  # a head of 128 dims would need 20 GB and more at 2^24 positions


class Row(NamedTuple):
    """What one kind of positions measured."""

    project: str
    version: str
    name: str
    found: dict[str, LawResult]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PROJECTS, help="measure this project alone and print its rows")
    only = parser.parse_args().only
    warnings.filterwarnings("ignore")
    began, rows, missing, claims = time.perf_counter(), [], [], []
    for project in PROJECTS if only is None else (only,):
        module, reason = loaded(project)
        if module is None:
            missing.append([project, PINS.get(project, ""), reason])
            continue
        rows += [laws_of(project, module, name) for name in module.names()]
        claims += [[project, *row] for row in claim_rows(module)]
        print(f"{project}: {time.perf_counter() - began:.0f} s so far", file=sys.stderr, flush=True)
    if only is not None:
        notes = Notes()
        print(main_table(rows, missing, notes), notes, sep="\n\n")
        return
    here = list(dict.fromkeys(row.project for row in rows))
    body = report(rows, missing, claims, here, began)
    write("positions_invariance", "Eight laws of positions, across projects", body, "torch", *here)


def loaded(project: str) -> tuple[Any, str]:
    """The adapter, or why it is not there."""
    if importlib.util.find_spec(PACKAGES[project]) is None:
        return None, "not installed"
    try:
        module = importlib.import_module(f"{PACKAGES[project]}_subject")
        importlib.import_module(PACKAGES[project])
    except Exception as error:
        return None, f"does not import: {type(error).__name__}: {str(error).strip().splitlines()[0]}"
    return module, ""


def laws_of(project: str, module: Any, name: str) -> Row:
    """All laws on one kind; if it cannot be built, its error in every cell."""
    try:
        subject: Subject = module.make(name)
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
        found = {law.name: LawResult(law=law.name, status="error", reason=reason) for law in LAWS}
        return Row(project, importlib.metadata.version(project), name, found)
    return Row(project, subject.version, name, {law.name: measure_law(subject, law) for law in LAWS})


def claim_rows(module: Any) -> Iterator[list[str]]:
    if hasattr(module, "claims"):
        for claim, found, holds in module.claims():
            yield [claim, found, "yes" if holds else "NO"]


class Notes:
    """Numbered reasons under a table; equal ones share a number."""

    def __init__(self) -> None:
        self.seen: dict[str, int] = {}

    def mark(self, reason: str) -> str:
        return f" [{self.seen.setdefault(reason, len(self.seen) + 1)}]"

    def __str__(self) -> str:
        return "\n".join(f"[{number}] {reason}  " for reason, number in self.seen.items())


def cell(found: LawResult, notes: Notes) -> str:
    number = "" if found.value is None else " NaN" if math.isnan(found.value) else f" {found.value:.0e}"
    status = found.status if found.good else f"**{found.status}**"
    return status + number + (notes.mark(found.reason) if found.reason and found.reason != "not finite" else "")


def main_table(rows: list[Row], missing: list[list[str]], notes: Notes) -> str:
    head = ["project", "positions", *(f"{law.number} {law.name}" for law in LAWS)]
    lines: list[list[str]] = [
        [f"{row.project} {row.version}", row.name, *(cell(row.found[law.name], notes) for law in LAWS)] for row in rows
    ]
    lines += [[f"{project} {pin}", reason, *["-"] * len(LAWS)] for project, pin, reason in missing]
    return table(head, lines)


def counts(rows: list[Row], here: list[str]) -> str:
    """Pass, fail and not applicable per project."""
    lines = []
    for project in here:
        found = [one for row in rows if row.project == project for one in row.found.values()]
        states = [sum(one.status == status for one in found) for status in ("pass", "FAIL", "error", "n/a")]
        lines.append([project, len(found) // len(LAWS), *states])
    return table(["project", "kinds", "pass", "FAIL", "error", "n/a"], lines)


def expected(rows: list[Row], missing: list[list[str]]) -> str:
    """Which expected failures are still there, and which failures nobody expected."""
    cells = {(row.project, row.name, law): one for row in rows for law, one in row.found.items()}
    versions = {row.project: row.version for row in rows}
    lines, absent = [], {project for project, *_ in missing}
    for bad in KNOWN_BAD:
        if bad.project in absent:
            verdict = "not measured"
        else:
            one = cells.get((bad.project, bad.name, bad.law))
            still = one is not None and not one.good
            verdict = "still fails" if still else f"NO LONGER REPRODUCES ({'gone' if one is None else one.status})"
            if versions[bad.project] != bad.version:
                verdict += f", with {versions[bad.project]} instead of the pin"
        lines.append([f"{bad.project} {bad.version}", bad.name, bad.law, bad.source, verdict])
    text = table(["pinned", "positions", "law", "claim (section 2.1 unless said)", "now"], lines)
    known = {(bad.project, bad.name, bad.law) for bad in KNOWN_BAD}
    new = [key for key, one in cells.items() if not one.good and key not in known and key[2] != "10M"]
    if new:
        text += "\n\nFailures that no claim foretold (10M aside, which every float32 product of position and frequency "
        text += "fails):\n\n" + "\n".join(f"- {project} `{name}`: {law}" for project, name, law in new)
    return text


def precision_table(here: list[str]) -> str:
    head = ["project", "positions", "head", *(f"{position:,}" for position in POSITIONS)]
    lines = []
    for project in here:
        width = NARROW.get(project, HEAD_DIM)
        module = importlib.import_module(f"{PACKAGES[project]}_subject")
        lines += [
            [project, name, width, *(error_cell(module.make(name, width), one) for one in POSITIONS)]
            for name in FAR_KINDS[project]
        ]
    return table(head, lines)


def error_cell(subject: Subject, position: int) -> str:
    try:
        mean, largest = measure_errors_at(subject, position)
    except Exception as error:
        return f"error: {type(error).__name__}"
    return "NaN" if math.isnan(mean) else f"{mean:.0e} / {largest:.0e}"


def report(rows: list[Row], missing: list[list[str]], claims: list[list[str]], here: list[str], began: float) -> str:
    notes = Notes()
    laws = "\n".join(f"{law.number}. **{law.name}**: {law.says} (limit {law.limit:g})" for law in LAWS)
    parts = [
        Path(__file__).with_name("intro.md").read_text().strip().replace("{laws}", laws),
        "## The table",
        counts(rows, here),
        main_table(rows, missing, notes),
        str(notes),
        "## Expected failures of the pinned versions",
        expected(rows, missing),
        "## Claims beside the laws",
        table(["project", "claim (row of section 2.1)", "found", "reproduces"], claims)
        if claims
        else "No peer is here.",
        Path(__file__).with_name("notes.md").read_text().strip(),
        "## Error of a score against float64, by position: mean / largest",
        precision_table(here),
        f"Vectors of unit variance, float32, divided by the root of the head's size; head {HEAD_DIM} except where a "
        "peer would need tens of gigabytes. The reference takes the subject's own frequencies, in float64, so that the "
        "handling of positions alone is measured.",
        f"## Memory of angles for 10,000,000 positions, head {HEAD_DIM}",
        table(["project", "kept", "made in one pass", "what it is"], memory_rows(here)),
        "Made = bytes of all tensors that operations write on the way, on the CPU path.",
        f"The whole run took {time.perf_counter() - began:.0f} s with OMP_NUM_THREADS={torch.get_num_threads()}.",
    ]
    return "\n\n".join(part for part in parts if part)


if __name__ == "__main__":
    with torch.no_grad():
        main()
