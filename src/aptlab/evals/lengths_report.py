"""`eval=lengths`: loss at multiples of the trained context, and by position."""

from __future__ import annotations

import sys
import time

from aptlab.evals import evaluate_windows, fit_windows
from aptlab.evals.context import EvalContext
from aptlab.evals.figure import draw_length_figure
from aptlab.evals.rules import LengthLoss
from aptlab.report import format_length_table
from aptlab.runs.atomic import write_json


def run_length_eval(bench: EvalContext, rule: LengthLoss) -> None:
    """Print the table; write eval.json and figure.png."""
    data = bench.data()
    changes = bench.changes(data)
    context = bench.context
    windows = fit_windows(
        data, context=context, multiples=rule.multiples, tokens=rule.tokens, longest=bench.net.max_positions
    )
    begun = time.perf_counter()
    measured = evaluate_windows(
        bench.net, windows, device=bench.device, precision=bench.precision, progress=print_length_progress
    )
    seconds = time.perf_counter() - begun
    print(format_length_table(measured.rows, context))
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
    figure = draw_length_figure(measured.rows, measured.positions, title=bench.title(), path=path, context=context)
    print(f"figure   {figure}\nresults  {bench.folder / 'eval.json'}")


def print_length_progress(multiple: int) -> None:
    """On a terminal, say which length is being read."""
    if sys.stderr.isatty():
        print(f"\x1b[2mmeasuring {multiple}x …\x1b[0m", file=sys.stderr, flush=True)
