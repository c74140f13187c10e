"""Break runs on purpose, the faults F1 to F20, and count how often nothing was lost and nothing damaged was taken.

A try holds when no acknowledged step was lost, nothing damaged or hostile was accepted, what was continued ends with
weights, optimizer state and numbers equal to the bit to those of a run that nothing happened to, the exit code is the
promised one, and what was told is a message and no traceback. `python benchmarks/faults.py kills damage` runs
campaigns by name, and without a name all of them. `--count` tries are shared among the kinds of each; without it they
are those of the page, and a campaign's lines take the place of its older ones in faults.jsonl, out of which the page is
written. Exit 1 if one try did not hold.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import importlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src"), str(ROOT / "benchmarks")]
os.environ["PYTHONPATH"] = os.pathsep.join(sys.path[:2])
os.environ.setdefault("OMP_NUM_THREADS", "1")

from common import RESULTS, machine, table, versions  # noqa: E402

# campaigns by name, and how many tries each makes unless --count says otherwise
COUNTS = {"kills": 240, "damage": 480, "foreign": 120, "inputs": 80}
COUNTS |= {"disk": 60, "signals": 30, "ranks": 40, "limits": 120, "machine": 40}
NOT_HERE = {"F16": "a server; there is none yet"}
JOURNAL, PAGE = RESULTS / "faults.jsonl", RESULTS / "faults.md"
Line = dict[str, Any]


def run_campaign(name: str, count: int, seed: int) -> Line:
    """A line of the journal: what held, when, of which commit and beside what else."""
    begun = time.monotonic()
    rows = importlib.import_module(f"benchmarks.fault_campaigns.{name}").run(count, seed)
    return {
        "campaign": name,
        "seed": seed,
        "commit": find_commit(),
        "date": f"{datetime.date.today()}",
        "seconds": round(time.monotonic() - begun),
        "load": round(os.getloadavg()[2], 1),
        "machine": machine(),
        "versions": f"Python {platform.python_version()}, {versions('torch', 'lightning', 'aptlab')}",
        "rows": [dataclasses.asdict(row) for row in rows],
    }


def find_commit() -> str:
    """The commit of what is measured; with a + where code or options were changed since."""
    found = ask_git("rev-parse", "--short", "HEAD")
    return found + ("+" if found and ask_git("status", "--porcelain", "--", "src", "conf", "benchmarks/*.py") else "")


def ask_git(*words: str) -> str:
    return subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False).stdout.strip()


def read_journal() -> list[Line]:
    return [json.loads(line) for line in JOURNAL.read_text().splitlines()] if JOURNAL.is_file() else []


def write_journal(lines: Sequence[Line]) -> None:
    """One line for each campaign, in the order of COUNTS, the last one counts."""
    kept = {line["campaign"]: line for line in lines}
    JOURNAL.write_text("".join(json.dumps(kept[name]) + "\n" for name in COUNTS if name in kept))


def render_rows(lines: Sequence[Line]) -> str:
    """The table, by the number of the fault."""
    rows = [row for line in lines for row in line["rows"]]
    rows.sort(key=lambda row: int("".join(filter(str.isdigit, row["fault"].split()[0])) or 0))
    cells = [[row["fault"], row["injected"], row["tried"], row["held"], row["note"]] for row in rows]
    total = [sum(row[key] for row in rows) for key in ("tried", "held")]
    return table(["fault", "how", "tries", "held", "note"], [*cells, ["all", "", *total, ""]])


def render_page(lines: Sequence[Line]) -> str:
    """The page of a journal."""
    missed = [f"{fault}: {why}." for fault, why in NOT_HERE.items()]
    missed += [f"The campaign {name} was not run." for name in COUNTS if name not in {one["campaign"] for one in lines}]
    keys = ("campaign", "commit", "date", "seconds", "load", "machine", "versions")
    campaigns = table(keys, [["" if line[key] is None else line[key] for key in keys] for line in lines])
    about = (__doc__ or "").split("\n\n", 1)[1].strip()
    return (
        f"# Runs broken on purpose\n\n{render_rows(lines)}\n\nNot here: {' '.join(missed)}\n\n{about}\n\n"
        "Load is the mean over the quarter of an hour before a campaign's end; a cell is empty where a number was not "
        f"kept by campaign.\n\n{campaigns}\n\n"
        "- command: `python benchmarks/faults.py`\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("campaigns", nargs="*", choices=[*COUNTS, []], help=f"any of {', '.join(COUNTS)}; all of them")
    parser.add_argument("--count", type=int, help="tries of each campaign; nothing is written then")
    parser.add_argument("--seed", type=int, default=0, help="of places, bits and times")
    args = parser.parse_args()
    found = []
    for name in args.campaigns or COUNTS:
        found.append(run_campaign(name, args.count or COUNTS[name], args.seed))
        if not args.count:
            write_journal([*read_journal(), found[-1]])
            PAGE.write_text(render_page(read_journal()))
    print(render_rows(found))
    sys.exit(any(row["tried"] != row["held"] for line in found for row in line["rows"]))


if __name__ == "__main__":
    main()
