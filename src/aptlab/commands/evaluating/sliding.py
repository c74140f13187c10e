"""`eval=sliding`: perplexity of windows that slide over the validation text."""

from __future__ import annotations

import time
from typing import Any

import torch

from aptlab.commands.evaluating.bench import Bench
from aptlab.commands.evaluating.figure import single
from aptlab.commands.evaluating.keeping import held, journal
from aptlab.commands.evaluating.progress import Meter
from aptlab.data.windows import Windows
from aptlab.evals.rules import Sliding
from aptlab.evals.sliding import NOTE, segment, summary
from aptlab.evals.stream import Journal
from aptlab.report.table import number, render
from aptlab.runs.atomic import write_json


def measure(bench: Bench, rule: Sliding) -> None:
    """Print the table; write eval.json and figure.png. Finished segments are kept, so that a broken run goes on."""
    lengths = bench.lengths(rule)
    data = bench.data()
    changes = bench.changes(data)
    windows = data.windows(lengths[-1], multiples=(1,), tokens=rule.tokens)
    begun = time.perf_counter()
    with held(bench.folder), journal(bench, lengths, data.fingerprint) as kept:
        slide(bench, rule, windows, kept)
        rate = windows.meta["bytes_per_token"]
        rows = [summary(length, [row for row in kept.rows if row["length"] == length], rate) for length in lengths]
    facts = bench.facts(changes, {"fingerprint": data.fingerprint, **windows.meta})
    measured = {"seconds": time.perf_counter() - begun, "stride": rule.stride, "lengths": rows, "note": NOTE}
    write_json(bench.folder / "eval.json", {**facts, "eval": bench.wanted["eval"], **measured})
    print(table(rows, rule.stride, bench.context))
    figure = single(rows, title=bench.title(), path=bench.folder / "figure.png", context=bench.context)
    print(f"figure   {figure}\nresults  {bench.folder / 'eval.json'}")


def slide(bench: Bench, rule: Sliding, windows: Windows, kept: Journal) -> None:
    """Measure the segments that the journal does not hold yet, the short windows first."""
    lengths, tokens = rule.at(bench.context), windows.side.tokens
    done = {(row["length"], row["start"]) for row in kept.rows}
    plan = [(length, int(start)) for length in lengths for start in windows.starts]
    with Meter("sliding", total=len(plan), done=len(done)) as meter:
        for length, start in plan:
            if (length, start) in done:
                continue
            text = torch.from_numpy(tokens[start : start + windows.length + 1].astype("int64"))
            sums = segment(
                bench.net, text, length=length, stride=rule.stride, device=bench.device, precision=bench.precision
            )
            kept.append({"length": length, "start": start, **sums})
            meter.step(note=f"{length:,} tokens")


def table(rows: list[dict[str, Any]], stride: int, context: int) -> str:
    """Loss and perplexity by window, and what other evaluators print."""
    head = ["window", "tokens", "windows", "loss", "ppl", "bpb", "chunk ppl"]
    body = [
        [
            f"{row['length']:,}",
            f"{row['tokens']:,}",
            f"{row['windows']:,}",
            number(row["loss"], 4),
            number(row["ppl"], 3),
            number(row["bpb"], 4),
            number(row["chunk_ppl"], 3),
        ]
        for row in rows
    ]
    title = f"loss in a sliding window, stride {stride:,} (trained at {context:,} tokens)"
    return f"{render(head, body, title=title)}\nnote: {NOTE}"
