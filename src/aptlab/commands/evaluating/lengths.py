"""`eval=lengths`: loss at multiples of the trained context, and by position."""

from __future__ import annotations

import sys
import time

from aptlab.commands.evaluating.bench import Bench
from aptlab.commands.evaluating.figure import draw
from aptlab.evals import evaluate, fitting_windows
from aptlab.evals.rules import LengthLoss
from aptlab.report import length_table
from aptlab.runs.atomic import write_json


def measure(bench: Bench, rule: LengthLoss) -> None:
    """Print the table; write eval.json and figure.png."""
    data = bench.data()
    changes = bench.changes(data)
    context = bench.context
    windows = fitting_windows(
        data, context=context, multiples=rule.multiples, tokens=rule.tokens, longest=bench.net.longest
    )
    begun = time.perf_counter()
    measured = evaluate(bench.net, windows, device=bench.device, precision=bench.precision, progress=progress)
    seconds = time.perf_counter() - begun
    print(length_table(measured.rows, context))
    write_json(
        bench.folder / "eval.json",
        {
            **bench.facts(changes, {"fingerprint": data.fingerprint, **windows.meta}),
            "seconds": seconds,
            "lengths": measured.rows,
            "positions": measured.positions,
        },
    )
    path = bench.folder / "figure.png"
    figure = draw(measured.rows, measured.positions, title=bench.title(), path=path, context=context)
    print(f"figure   {figure}\nresults  {bench.folder / 'eval.json'}")


def progress(multiple: int) -> None:
    """On a terminal, say which length is being read."""
    if sys.stderr.isatty():
        print(f"\x1b[2mmeasuring {multiple}x …\x1b[0m", file=sys.stderr, flush=True)
