"""`eval=passkey`, `eval=needle`, `eval=ruler`: ask, answer, keep, count, draw."""

from __future__ import annotations

import csv
import io
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from aptlab.commands.evaluating.bench import Bench
from aptlab.commands.evaluating.figure import heat
from aptlab.commands.evaluating.keeping import held, journal
from aptlab.commands.evaluating.progress import Meter
from aptlab.errors import ConfigError
from aptlab.evals.retrieval import answer, grid, means
from aptlab.evals.rules import Retrieval
from aptlab.evals.stream import Journal
from aptlab.evals.tasks import Samples, Stored
from aptlab.report.table import number, render
from aptlab.runs.atomic import write_json, write_text

Row = Mapping[str, Any]
SAMPLE = ("task", "length", "asked_depth", "index", "depth", "score", "token_accuracy", "loss", "tokens")
CELL = ("task", "length", "depth", "samples", "score", "low", "high", "token_accuracy", "loss")
NOTE = (
    "score: share of the answers found in the greedy text; tokens right and loss (nats per token): of the expected "
    "answer, given its beginning; intervals: Wilson, 95 %"
)


def measure(bench: Bench, rule: Retrieval) -> None:
    """Print the table; write eval.json, samples.csv, grid.csv and heatmap.png; go on where an earlier call stopped."""
    lengths = bench.lengths(rule)
    check_vocabulary(bench)
    data = bench.data() if rule.reads_text else None
    changes = bench.changes(data)
    texts = None if data is None else Stored(data.store.val, bench.tokenizer)
    sets = [
        Samples(task, tokenizer=bench.tokenizer, length=length, texts=texts, seed=rule.seed, budget=rule.budget)
        for length in lengths
        for task in rule.made()
    ]
    begun = time.perf_counter()
    with held(bench.folder), journal(bench, lengths, None if data is None else data.fingerprint) as kept:
        try:
            ask(bench, rule, sets, kept)
        except KeyboardInterrupt:
            print(f"\nto go on, give the same command with out={bench.folder}", file=sys.stderr)
            raise
        rows = in_order(kept.rows, rule, lengths)
    found = results(rows, sets, lengths)
    seconds = time.perf_counter() - begun
    facts = bench.facts(changes, None if data is None else {"fingerprint": data.fingerprint})
    write_json(
        bench.folder / "eval.json",
        {**facts, "eval": bench.wanted["eval"], "seconds": seconds, **found, "note": NOTE},
    )
    write_text(bench.folder / "samples.csv", samples_csv(rows))
    write_text(bench.folder / "grid.csv", table_csv(CELL, found["grid"]))
    print(table(found, rule.name, bench.context))
    title = f"{rule.name}: {bench.title()}"
    figure = heat(found["grid"], found["lengths"], title=title, path=bench.folder / "heatmap.png")
    print(f"figure   {figure}\nresults  {bench.folder / 'eval.json'}, grid.csv and samples.csv beside it")


def check_vocabulary(bench: Bench) -> None:
    if bench.tokenizer.vocab_size > bench.net.vocab:
        raise ConfigError(
            f"the tokenizer has {bench.tokenizer.vocab_size} tokens and the model {bench.net.vocab}; "
            "evaluate a checkpoint that was trained with its own tokenizer"
        )


def ask(bench: Bench, rule: Retrieval, sets: Sequence[Samples], kept: Journal) -> None:
    """Answer what the journal does not hold yet; every outcome is on disk before the next batch is read."""
    done = {(row["task"], row["length"], row["asked_depth"], row["index"]) for row in kept.rows}
    total = len(sets) * len(rule.places()) * rule.samples
    if done:
        print(f"going on after {len(done):,} of {total:,} samples", flush=True)
    with Meter(rule.name, total=total, done=len(done)) as meter:
        for one in sets:
            wanted = [
                (index, depth)
                for depth in rule.places()
                for index in range(rule.samples)
                if (one.asked.name, one.length, depth, index) not in done
            ]
            for block in blocks(wanted):
                made = [one.make(index, depth) for index, depth in block]
                for outcome in answer(
                    bench.net, made, tokenizer=bench.tokenizer, device=bench.device, precision=bench.precision
                ):
                    kept.append(outcome.plain())
                    meter.step(note=f"{one.asked.name} at {one.length:,}")


def blocks(wanted: Sequence[Any], size: int = 64) -> Iterator[Sequence[Any]]:
    """Samples that are made before they are answered; prompts are long, so not all at once."""
    for first in range(0, len(wanted), size):
        yield wanted[first : first + size]


def in_order(rows: Sequence[Row], rule: Retrieval, lengths: Sequence[int]) -> list[Row]:
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


def results(rows: Sequence[Row], sets: Sequence[Samples], lengths: Sequence[int]) -> dict[str, Any]:
    """The grid, the mean over tasks and depths at each length, and the form that each task took at each length."""
    forms = [
        {"task": one.asked.name, "length": one.length, "budget": one.budget, **one.task.parameters()} for one in sets
    ]
    at = [{"length": length, **means([row for row in rows if row["length"] == length])} for length in lengths]
    return {"lengths": at, "grid": grid(rows), "forms": forms}


def samples_csv(rows: Sequence[Row]) -> str:
    """One line per sample; answers are separated by spaces."""
    plain = [{**row, "answers": " ".join(row["answers"])} for row in rows]
    return table_csv((*SAMPLE, "answers", "generated"), plain)


def table_csv(columns: Sequence[str], rows: Sequence[Row]) -> str:
    """A CSV file in full precision; empty where there is no value."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([["" if row[name] is None else row[name] for name in columns] for row in rows])
    return out.getvalue()


def table(found: Mapping[str, Any], name: str, context: int) -> str:
    """Score in percent by task (or depth) and length, then the means of all."""
    lengths = [row["length"] for row in found["lengths"]]
    cells = {(label(row), row["length"]): row for row in found["grid"]}
    names = list(dict.fromkeys(label(row) for row in found["grid"]))
    body = [[one, *(percent(cells.get((one, length))) for length in lengths)] for one in names]
    total = found["lengths"]
    body += [
        ["all", *(percent(row) for row in total)],
        ["tokens right", *(f"{100 * row['token_accuracy']:.1f}" for row in total)],
        ["loss", *(number(row["loss"], 3) for row in total)],
    ]
    head = [
        "task" if len(found["grid"]) and found["grid"][0]["depth"] is None else "depth",
        *(f"{n:,}" for n in lengths),
    ]
    title = f"{name}: percent of answers found, by length in tokens (trained at {context:,})"
    return f"{render(head, body, title=title, bold=[len(names)])}\nnote: {NOTE}"


def label(row: Row) -> str:
    """What a row of the table is about: its depth where the task has depths, else its task."""
    return row["task"] if row["depth"] is None else f"{100 * row['depth']:.0f} %"


def percent(row: Row | None) -> str:
    """Score and interval, `62 (47-75)`."""
    if row is None:
        return "-"
    return f"{100 * row['score']:.0f} ({100 * row['low']:.0f}-{100 * row['high']:.0f})"
