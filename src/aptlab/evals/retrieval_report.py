"""`eval=passkey`, `eval=needle`, `eval=ruler`: ask, answer, keep, count, draw."""

from __future__ import annotations

import csv
import io
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from aptlab.errors import ConfigError
from aptlab.evals.context import EvalContext
from aptlab.evals.figure import draw_retrieval_heatmap
from aptlab.evals.journal import ResultJournal
from aptlab.evals.resume import lock_folder, open_eval_journal
from aptlab.evals.retrieval import answer_samples, average_outcomes, summarize_grid
from aptlab.evals.rules import Retrieval
from aptlab.evals.tasks import StoredTexts, TaskSampler
from aptlab.report.progress import ProgressBar
from aptlab.report.table import format_number, render_table
from aptlab.runs.atomic import write_json, write_text

Row = Mapping[str, Any]
SAMPLE = ("task", "length", "asked_depth", "index", "depth", "score", "token_accuracy", "loss", "tokens")
CELL = ("task", "length", "depth", "samples", "score", "low", "high", "token_accuracy", "loss")
NOTE = (
    "score: share of the answers found in the greedy text; tokens right and loss (nats per token): of the expected "
    "answer, given its beginning; intervals: Wilson, 95 %"
)


def run_retrieval_eval(bench: EvalContext, rule: Retrieval) -> None:
    """Print the table; write eval.json, samples.csv, grid.csv and heatmap.png; go on where an earlier call stopped."""
    lengths = bench.lengths(rule)
    check_vocabulary(bench)
    data = bench.data() if rule.reads_text else None
    changes = bench.changes(data)
    texts = None if data is None else StoredTexts(data.store.val, bench.tokenizer)
    sets = [
        TaskSampler(task, tokenizer=bench.tokenizer, length=length, texts=texts, seed=rule.seed, budget=rule.budget)
        for length in lengths
        for task in rule.made()
    ]
    begun = time.perf_counter()
    with (
        lock_folder(bench.folder),
        open_eval_journal(bench, lengths, None if data is None else data.fingerprint) as kept,
    ):
        try:
            answer_missing_samples(bench, rule, sets, kept)
        except KeyboardInterrupt:
            print(f"\nto go on, give the same command with out={bench.folder}", file=sys.stderr)
            raise
        rows = sort_rows(kept.rows, rule, lengths)
    found = collect_retrieval_results(rows, sets, lengths)
    seconds = time.perf_counter() - begun
    facts = bench.facts(changes, None if data is None else {"fingerprint": data.fingerprint})
    write_json(
        bench.folder / "eval.json",
        {**facts, "eval": bench.wanted["eval"], "seconds": seconds, **found, "note": NOTE},
    )
    write_text(bench.folder / "samples.csv", format_samples_csv(rows))
    write_text(bench.folder / "grid.csv", format_table_csv(CELL, found["grid"]))
    print(format_retrieval_table(found, rule.name, bench.context))
    title = f"{rule.name}: {bench.title()}"
    figure = draw_retrieval_heatmap(found["grid"], found["lengths"], title=title, path=bench.folder / "heatmap.png")
    print(f"figure   {figure}\nresults  {bench.folder / 'eval.json'}, grid.csv and samples.csv beside it")


def check_vocabulary(bench: EvalContext) -> None:
    if bench.tokenizer.vocab_size > bench.net.vocab:
        raise ConfigError(
            f"the tokenizer has {bench.tokenizer.vocab_size} tokens and the model {bench.net.vocab}; "
            "evaluate a checkpoint that was trained with its own tokenizer"
        )


def answer_missing_samples(
    bench: EvalContext, rule: Retrieval, sets: Sequence[TaskSampler], kept: ResultJournal
) -> None:
    """Answer what the journal does not hold yet; every outcome is on disk before the next batch is read."""
    done = {(row["task"], row["length"], row["asked_depth"], row["index"]) for row in kept.rows}
    total = len(sets) * len(rule.places()) * rule.samples
    if done:
        print(f"going on after {len(done):,} of {total:,} samples", flush=True)
    with ProgressBar(rule.name, total=total, done=len(done)) as meter:
        for one in sets:
            wanted = [
                (index, depth)
                for depth in rule.places()
                for index in range(rule.samples)
                if (one.asked.name, one.length, depth, index) not in done
            ]
            for block in split_blocks(wanted):
                made = [one.make(index, depth) for index, depth in block]
                for outcome in answer_samples(
                    bench.net, made, tokenizer=bench.tokenizer, device=bench.device, precision=bench.precision
                ):
                    kept.append(outcome.plain())
                    meter.step(note=f"{one.asked.name} at {one.length:,}")


def split_blocks(wanted: Sequence[Any], size: int = 64) -> Iterator[Sequence[Any]]:
    """Samples that are made before they are answered; prompts are long, so not all at once."""
    for first in range(0, len(wanted), size):
        yield wanted[first : first + size]


def sort_rows(rows: Sequence[Row], rule: Retrieval, lengths: Sequence[int]) -> list[Row]:
    """Rows by task, length, depth and index, whatever the order in which they were answered."""
    tasks = [task.name for task in rule.made()]
    return sorted(
        rows,
        key=lambda row: (
            tasks.index(row["task"]),
            lengths.index(row["length"]),
            -1.0 if row["asked_depth"] is None else row["asked_depth"],
            row["index"],
        ),
    )


def collect_retrieval_results(
    rows: Sequence[Row], sets: Sequence[TaskSampler], lengths: Sequence[int]
) -> dict[str, Any]:
    """The grid, the mean over tasks and depths at each length, and the form that each task took at each length."""
    forms = [
        {"task": one.asked.name, "length": one.length, "budget": one.budget, **one.task.parameters()} for one in sets
    ]
    at = [
        {"length": length, **average_outcomes([row for row in rows if row["length"] == length])} for length in lengths
    ]
    return {"lengths": at, "grid": summarize_grid(rows), "forms": forms}


def format_samples_csv(rows: Sequence[Row]) -> str:
    """One line per sample; answers are separated by spaces."""
    plain = [{**row, "answers": " ".join(row["answers"])} for row in rows]
    return format_table_csv((*SAMPLE, "answers", "generated"), plain)


def format_table_csv(columns: Sequence[str], rows: Sequence[Row]) -> str:
    """A CSV file in full precision; empty where there is no value."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([["" if row[name] is None else row[name] for name in columns] for row in rows])
    return out.getvalue()


def format_retrieval_table(found: Mapping[str, Any], name: str, context: int) -> str:
    """Score in percent by task (or depth) and length, then the means of all."""
    lengths = [row["length"] for row in found["lengths"]]
    cells = {(format_row_label(row), row["length"]): row for row in found["grid"]}
    names = list(dict.fromkeys(format_row_label(row) for row in found["grid"]))
    body = [[one, *(format_score_interval(cells.get((one, length))) for length in lengths)] for one in names]
    total = found["lengths"]
    body += [
        ["all", *(format_score_interval(row) for row in total)],
        ["tokens right", *(f"{100 * row['token_accuracy']:.1f}" for row in total)],
        ["loss", *(format_number(row["loss"], 3) for row in total)],
    ]
    head = [
        "task" if len(found["grid"]) and found["grid"][0]["depth"] is None else "depth",
        *(f"{n:,}" for n in lengths),
    ]
    title = f"{name}: percent of answers found, by length in tokens (trained at {context:,})"
    return f"{render_table(head, body, title=title, bold=[len(names)])}\nnote: {NOTE}"


def format_row_label(row: Row) -> str:
    """What a row of the table is about: its depth where the task has depths, else its task."""
    return row["task"] if row["depth"] is None else f"{100 * row['depth']:.0f} %"


def format_score_interval(row: Row | None) -> str:
    """Score and interval, `62 (47-75)`."""
    if row is None:
        return "-"
    return f"{100 * row['score']:.0f} ({100 * row['low']:.0f}-{100 * row['high']:.0f})"
