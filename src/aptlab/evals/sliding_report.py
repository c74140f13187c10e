"""`eval=sliding`: perplexity of windows that slide over the validation text."""

from __future__ import annotations

import time
from typing import Any

import torch

from aptlab.data.rows.windows import Windows
from aptlab.evals.context import EvalContext
from aptlab.evals.figure import draw_sliding_figure
from aptlab.evals.journal import ResultJournal
from aptlab.evals.resume import lock_folder, open_eval_journal
from aptlab.evals.rules import SlidingLoss
from aptlab.evals.sliding import NOTE, score_segment, summarize_segments
from aptlab.report.progress import ProgressBar
from aptlab.report.table import format_number, render_table
from aptlab.runs.atomic import write_json


def run_sliding_eval(bench: EvalContext, rule: SlidingLoss) -> None:
    """Print the table; write eval.json and figure.png. Finished segments are kept, so that a broken run goes on."""
    lengths = bench.lengths(rule)
    data = bench.data()
    changes = bench.changes(data)
    windows = data.windows(lengths[-1], multiples=(1,), tokens=rule.tokens)
    begun = time.perf_counter()
    with lock_folder(bench.folder), open_eval_journal(bench, lengths, data.fingerprint) as kept:
        measure_segments(bench, rule, windows, kept)
        rate = windows.meta["bytes_per_token"]
        rows = [
            summarize_segments(length, [row for row in kept.rows if row["length"] == length], rate)
            for length in lengths
        ]
    facts = bench.facts(changes, {"fingerprint": data.fingerprint, **windows.meta})
    measured = {"seconds": time.perf_counter() - begun, "stride": rule.stride, "lengths": rows, "note": NOTE}
    write_json(bench.folder / "eval.json", {**facts, "eval": bench.wanted["eval"], **measured})
    print(format_sliding_table(rows, rule.stride, bench.context))
    figure = draw_sliding_figure(rows, title=bench.title(), path=bench.folder / "figure.png", context=bench.context)
    print(f"figure   {figure}\nresults  {bench.folder / 'eval.json'}")


def measure_segments(bench: EvalContext, rule: SlidingLoss, windows: Windows, kept: ResultJournal) -> None:
    """Measure the segments that the journal does not hold yet, the short windows first."""
    lengths, tokens = rule.at(bench.context), windows.side.tokens
    done = {(row["length"], row["start"]) for row in kept.rows}
    plan = [(length, int(start)) for length in lengths for start in windows.starts]
    with ProgressBar("sliding", total=len(plan), done=len(done)) as meter:
        for length, start in plan:
            if (length, start) in done:
                continue
            text = torch.from_numpy(tokens[start : start + windows.length + 1].astype("int64"))
            sums = score_segment(
                bench.net, text, length=length, stride=rule.stride, device=bench.device, precision=bench.precision
            )
            kept.append({"length": length, "start": start, **sums})
            meter.step(note=f"{length:,} tokens")


def format_sliding_table(rows: list[dict[str, Any]], stride: int, context: int) -> str:
    """Loss and perplexity by window, and what other evaluators print."""
    head = ["window", "tokens", "windows", "loss", "ppl", "bpb", "chunk ppl"]
    body = [
        [
            f"{row['length']:,}",
            f"{row['tokens']:,}",
            f"{row['windows']:,}",
            format_number(row["loss"], 4),
            format_number(row["ppl"], 3),
            format_number(row["bpb"], 4),
            format_number(row["chunk_ppl"], 3),
        ]
        for row in rows
    ]
    title = f"loss in a sliding window, stride {stride:,} (trained at {context:,} tokens)"
    return f"{render_table(head, body, title=title)}\nnote: {NOTE}"
