"""Break runs on purpose, the faults F1 to F20, and count how often nothing was lost and nothing damaged was taken.

A try holds when no acknowledged step was lost, nothing damaged or hostile was accepted, what was continued ends with
weights, optimizer state and numbers equal to the bit to those of a run that nothing happened to, the exit code is the
promised one, and what was told is a message and no traceback. `python benchmarks/faults.py kills damage` runs
campaigns by name; `--count` tries are shared among the kinds of each. Exit 1 if one try did not hold.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src"), str(ROOT / "benchmarks")]
os.environ["PYTHONPATH"] = os.pathsep.join(sys.path[:2])
os.environ.setdefault("OMP_NUM_THREADS", "1")

# campaigns by name, and how many tries each makes unless --count says otherwise
COUNTS = {"kills": 240, "damage": 480, "foreign": 120, "inputs": 80}
COUNTS |= {"disk": 60, "signals": 30, "ranks": 40, "machine": 40}
NOT_HERE = {"F16": "a server; there is none yet"}


def main() -> None:
    from benchmarks.fault_campaigns.row import Row

    from common import RESULTS, table, write

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("campaigns", nargs="*", choices=[*COUNTS, []], help=f"any of {', '.join(COUNTS)}; all of them")
    parser.add_argument("--count", type=int, help="tries of each campaign")
    parser.add_argument("--seed", type=int, default=0, help="of places, bits and times")
    args = parser.parse_args()
    begun, rows = time.monotonic(), []
    for name in args.campaigns or COUNTS:
        rows += importlib.import_module(f"benchmarks.fault_campaigns.{name}").run(args.count or COUNTS[name], args.seed)
    rows.sort(key=lambda row: int("".join(filter(str.isdigit, row.fault.split()[0])) or 0))
    missed = [f"{fault}: {why}." for fault, why in NOT_HERE.items()]
    cells = [[row.fault, row.injected, row.tried, row.held, row.note] for row in rows]
    total = Row("all", "", sum(row.tried for row in rows), sum(row.held for row in rows))
    body = "\n\n".join(
        [
            table(["fault", "how", "tries", "held", "note"], [*cells, ["all", "", total.tried, total.held, ""]]),
            "Not here: " + " ".join(missed),
            (__doc__ or "").split("\n\n", 1)[1].strip(),
            f"{time.monotonic() - begun:,.0f} s; load of the machine at the end {os.getloadavg()[0]:.1f}.",
        ]
    )
    if args.campaigns or args.count:
        print(body)
    else:
        write("faults", "Runs broken on purpose", body, "torch", "lightning", "aptlab")
        print(RESULTS / "faults.md")
    sys.exit(total.tried != total.held)


if __name__ == "__main__":
    main()
