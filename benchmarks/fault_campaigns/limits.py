"""Every fault of two ranks at the limits that a run really has (30 and 60 s), several times; a row for each fault.

What holds is judged as in `ranks`, but for going on, which is judged there.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from benchmarks.fault_campaigns.ranks import REAL, Case, Try, list_cases, run_tries
from benchmarks.fault_campaigns.row import Row

JOBS = 6  # tries at a time, which mostly wait


def run(count: int = 120, seed: int = 0) -> list[Row]:
    """Break each of the cases count / cases times, at least once; no chance is in it, so the seed says nothing."""
    del seed
    root = Path(tempfile.mkdtemp())
    os.environ["APTLAB_CACHE"] = str(root / "cache")
    cases = list_cases()
    each = max(1, count // len(cases))
    tries = [
        Try(case, root / f"run-{number}-{turn}", REAL) for turn in range(each) for number, case in enumerate(cases)
    ]
    found: dict[str, list[tuple[str, float]]] = {}
    for attempt, problem, seconds in run_tries(tries, None, JOBS):
        found.setdefault(attempt.case.name, []).append((problem, seconds))
    rows = [make_row(case, found[case.name]) for case in cases]
    if any(row.held < row.tried for row in rows):
        print(f"logs are kept in {root}")
    else:
        shutil.rmtree(root)
    return rows


def make_row(case: Case, found: list[tuple[str, float]]) -> Row:
    """How often a case held, and how long it took until all ranks were gone."""
    problems, seconds = [problem for problem, _ in found if problem], [taken for _, taken in found]
    allowed = REAL[1] if case.within is None else case.within
    note = f"gone after {min(seconds):.0f} to {max(seconds):.0f} s, of {allowed:.0f} s allowed"
    note = "; ".join([note, *dict.fromkeys(problems)])
    return Row(f"F14 {case.name}", "at the limits of a run", len(found), len(found) - len(problems), note)
