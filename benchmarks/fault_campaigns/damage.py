"""Flip bits and cut ends of every kind of file that a run reads or writes, and read them back with the real readers.

A try is held when what comes back equals what was written (a space flipped into a tab, a cut that takes nothing), or
when the damage is said in one line that names the file, and what is used instead is right: the cache built again, the
row, line or run left out. It fails when other content is taken for whole, when there is a traceback, or when nothing is
said. Metrics and events come back with a row or a line less, never with another one.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.fault_campaigns.row import Row

KEPT = 3  # failures that a row names


@dataclass(frozen=True)
class Target:
    """One kind of file.

    name     of the row
    files    that are damaged, each the same number of times
    read     what a run makes of them: plain values that compare with ==, or AptlabError
    fits     whether a value, read without an error, may stand for the first one where a line was logged
    restore  brings everything back to what it was
    earlier  whether a value is what there was at an earlier moment, of which nothing need be said: a journal that is
             cut at the end of a line
    """

    name: str
    files: list[Path]
    read: Callable[[], Any]
    restore: Callable[[], None]
    fits: Callable[[Any, Any], bool] = field(default=lambda whole, got: whole == got)
    earlier: Callable[[Any, Any], bool] = field(default=lambda whole, got: whole == got)


class Listener(logging.Handler):
    """Lines that were logged since it was cleared."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def run(count: int = 400, seed: int = 0) -> list[Row]:
    """At least `count` flips over all kinds of files, and half as many cuts; a row for each kind and way."""
    rng, rows = random.Random(seed), []
    listener = Listener()
    logger = logging.getLogger("aptlab")
    before = logger.propagate, logger.level
    logger.addHandler(listener)
    logger.propagate = False
    logger.setLevel(logging.DEBUG)
    try:
        with tempfile.TemporaryDirectory() as folder:
            targets = list(make_targets(Path(folder)))
            each = -(-count // len(targets))
            for target in targets:
                rows.append(damage_target(target, "one bit flipped", flip_bit, each, rng, listener))
                rows.append(damage_target(target, "cut off or emptied", cut_end, -(-each // 2), rng, listener))
    finally:
        logger.removeHandler(listener)
        logger.propagate = before[0]
        logger.setLevel(before[1])
    return rows


def damage_target(
    target: Target,
    injected: str,
    damage: Callable[[bytes, random.Random, int], bytes],
    count: int,
    rng: random.Random,
    listener: Listener,
) -> Row:
    """Damage the files of one kind in turn; never stops at a failure."""
    whole = target.read()
    held, failures = 0, []
    for number in range(count):
        path = target.files[number % len(target.files)]
        data = path.read_bytes()
        changed = damage(data, rng, number // len(target.files))
        stat = path.stat()
        path.write_bytes(changed)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        listener.lines.clear()
        problem = judge_reading(target, whole, path, listener)
        held += problem is None
        if problem is not None:
            failures.append(f"{path.name} at try {number}: {problem}")
        target.restore()
    return Row(f"F5 {target.name}", injected, count, held, "; ".join(failures[:KEPT]))


def judge_reading(target: Target, whole: Any, path: Path, listener: Listener) -> str | None:
    """What is wrong with what a damaged file was taken for, None where the promise held."""
    from aptlab.errors import AptlabError

    try:
        got = target.read()
    except AptlabError as error:
        text = str(error)
        if "\n" in text.strip():
            return f"a message of {len(text.splitlines())} lines"
        return None if path.name in text or path.parent.name in text else f"a message without the file: {text[:80]}"
    except Exception as error:
        return f"a traceback: {type(error).__name__}: {str(error)[:80]}"
    if got == whole or target.earlier(whole, got):
        return None
    if not listener.lines:
        return "other content was taken for whole, without a word"
    named = [line for line in listener.lines if path.name in line or path.parent.name in line]
    if not named or any("\n" in line for line in listener.lines):
        return f"no line names the file: {listener.lines[0][:80]}"
    return None if target.fits(whole, got) else "other content was used"


def flip_bit(data: bytes, rng: random.Random, number: int) -> bytes:
    """One bit changed, anywhere."""
    del number
    changed = bytearray(data)
    changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cut_end(data: bytes, rng: random.Random, number: int) -> bytes:
    """Nothing left, one byte less, or cut anywhere."""
    return data[: (0, len(data) - 1)[number] if number < 2 else rng.randrange(len(data))]


def keep(files: list[Path]) -> Callable[[], None]:
    """A function that writes these files as they are now, and removes what was made beside them since."""
    content = {path: path.read_bytes() for path in files}
    folders = {path.parent: set(path.parent.iterdir()) for path in files}

    def restore() -> None:
        for folder, names in folders.items():
            folder.mkdir(exist_ok=True)
            for path in set(folder.iterdir()) - names:
                if path.is_file():
                    path.unlink()
        for path, data in content.items():
            if not path.exists() or path.read_bytes() != data:
                path.write_bytes(data)

    return restore


def make_targets(root: Path) -> Iterator[Target]:
    """Every kind of file, whole, in folders of their own."""
    yield from make_checkpoint_targets(root / "checkpoints")
    yield from make_cache_targets(root / "cache")
    yield from make_run_targets(root / "runs" / "one")
    yield from make_journal_targets(root / "journals")


def make_checkpoint_targets(folder: Path) -> Iterator[Target]:
    """A checkpoint as the loader of a resume reads it, and its manifest."""
    import torch

    from aptlab.checkpoint import find_checkpoint, load_checkpoint, save_checkpoint

    for step in (1, 2):
        entry = {"step": step, "config": {"seed": 1}, "metric": 2.5 - step, "monitor": "val/loss"}
        weights = {f"w{n}": torch.randn(30, 30, generator=torch.Generator().manual_seed(n)) for n in range(3)}
        content = {"state_dict": weights, "global_step": step, "aptlab": entry}
        save_checkpoint(content, folder / f"step-{step:08d}.ckpt")
    newest = folder / "step-00000002.ckpt"
    both = [newest, newest.with_suffix(".json")]

    def load() -> Any:
        loaded = load_checkpoint(newest)
        return {name: value.tolist() for name, value in loaded["state_dict"].items()}, loaded["aptlab"]

    yield Target("checkpoint, loaded by name", both, load, keep(both))
    # A resume takes the newest valid one: the older one, with a line, where the newest is damaged.
    yield Target(
        "checkpoint, the newest of a run", both, lambda: find_checkpoint(folder).name, keep(both), lambda a, b: b < a
    )


def make_cache_targets(root: Path) -> Iterator[Target]:
    """The token cache, opened and read as training does; the tokenizer and the split in the cache."""
    import numpy as np

    from aptlab.data.module import TextData
    from aptlab.data.sources import TextFiles
    from aptlab.data.store import cache
    from aptlab.data.store.split import Split
    from aptlab.data.tokenizers import BPE

    root.mkdir(parents=True)
    rng = random.Random(1)
    for n in range(12):
        words = " ".join(rng.choices(["some", "words", "of", "a", "text", "told", "twice"], k=900))
        (root / f"{n}.txt").write_text(f"Document {n}: {words}")

    def open_data() -> TextData:
        source, place = TextFiles(str(root / "*.txt")), str(root / "cache")
        return TextData(source, BPE(vocab=300), context=32, batch=4, split=Split(0.3), cache=place)

    def read_text() -> Any:
        data = open_data()
        sides = [(side.offsets.tolist(), side.sizes.tolist()) for side in (data.store.train, data.store.val)]
        tokens = [np.asarray(side.tokens).tolist() for side in (data.store.train, data.store.val)]
        return tokens, sides, data.fingerprint, data.tokenizer.key(), data.summary()

    def read_lazily() -> Any:
        """As a cache that is larger than what is verified at its opening, after one more start where that is said."""
        from aptlab.errors import DataError

        before, cache.WHOLE = cache.WHOLE, 0
        try:
            return read_text()
        except DataError as error:
            if "start again" not in str(error):
                raise
            logging.getLogger("aptlab").warning("%s", error)
            return read_text()
        finally:
            cache.WHOLE = before

    folder = open_data().store.folder
    files = sorted(path for path in folder.iterdir() if path.is_file())
    yield Target("token cache", files, read_text, keep(files))
    yield Target("token cache, read lazily", files, read_lazily, keep(files))
    for name, kind in (("tokenizers", "tokenizer cache"), ("splits", "plan of the split")):
        kept = sorted(path for path in (root / "cache" / name).iterdir() if path.suffix in (".json", ".sha256"))
        yield Target(kind, kept, read_text, keep(kept))


def make_run_targets(folder: Path) -> Iterator[Target]:
    """The records of a finished run as `compare` reads them, and metrics.csv as `plot` does."""
    from aptlab.loggers import CSVMetrics
    from aptlab.runs import Result, RunFolder, find_runs

    with RunFolder.create(run_dir=folder) as run_folder:
        config = {"seed": 3, "rope": {"factor": 4.0}, "data": {"val_batches": 32, "batch": 16}, "context": 256}
        run_folder.write_start(config=config, overrides=["rope.factor=4.0", "seed=3"], choices={"rope": "yarn"}, seed=3)
        numbers = {"val/loss": 1.532, "train/loss": 1.71}
        run_folder.write_result(Result(job="train", seed=3, steps=400, metrics=numbers, config_hash="0123abcd"))
        logger = CSVMetrics(folder)
        for step in range(1, 41):
            logger.log_metrics({"epoch": 0, "train/loss": 4.0 / step, "lr": 1e-3 * step}, step)
        logger.finalize("success")

    def read_runs() -> Any:
        found = find_runs([folder])
        return [(run.result, run.config, run.overrides, run.choices, run.environment) for run in found]

    for name in ("result.json", "config.yaml", "environment.json", "overrides.yaml", "choices.yaml"):
        yield Target(name, [folder / name], read_runs, keep([folder / name]), lambda whole, got: got == [])
    both = [folder / "metrics.csv", folder / "metrics.csv.sum"]

    def read_rows() -> Any:
        columns = find_runs([folder])[0].metrics()
        names = list(columns)
        return {tuple(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)}

    yield Target("metrics.csv", both, read_rows, keep(both), lambda whole, got: got < whole)


def make_journal_targets(root: Path) -> Iterator[Target]:
    """Journals of a search, of an eval and of a sweep."""
    from aptlab.evals.base import EvalFolder
    from aptlab.evals.sliding import SHAPE
    from aptlab.search.evaluation_cache import SearchJob
    from aptlab.search.journal import SearchJournal
    from aptlab.sweep.folder import SweepFolder
    from aptlab.sweep.job import SweepJob

    search, request = root / "search" / "journal.jsonl", {"target": 512, "seed": 1}
    search.parent.mkdir(parents=True)
    journal = SearchJournal(search, request)
    for number in range(12):
        journal.add(SearchJob((1.0, 2.5, 4.0), 512, (number,)), (3.25 + number,))
    journal.add_baseline("yarn", [(1.5, 2.5)])

    def read_search() -> Any:
        again = SearchJournal(search, request)
        return [*again.known.items(), *((name, tuple(losses)) for name, losses in again.baselines.items())]

    yield Target("journal of a search", [search], read_search, keep([search]), earlier=is_beginning)
    place = root / "eval"
    place.mkdir()
    with EvalFolder(place).open_journal({"eval": {"a": 1}}, SHAPE) as records:
        for start in range(12):
            row = {"length": 64, "start": start, "nats": 3.5 + start, "tokens": 64, "windows": 4, "means": 2.5}
            records.append(row)

    def read_eval() -> Any:
        with EvalFolder(place).open_journal({"eval": {"a": 1}}, SHAPE) as again:
            return [tuple(sorted(record.items())) for record in again.records]

    rows = [place / "journal.jsonl"]
    yield Target("journal of an eval", rows, read_eval, keep(rows), earlier=is_beginning)
    jobs = [SweepJob((f"seed={n}",), f"key{n}", (f"seed={n}",), n) for n in range(4)]
    sweep = SweepFolder.open(root / "sweeps", "s")
    sweep.write(jobs, kind="grid")
    for job in jobs:
        sweep.journal("started", job)
        sweep.journal("failed", job, code=1)
    sweep.close()

    def read_sweep() -> Any:
        with contextlib.closing(SweepFolder.open(root / "sweeps", "s")) as again:
            return again.numbers, sorted(again.last_events().items()), [again.run_dir(job).name for job in jobs]

    events = [sweep.path / "journal.jsonl"]
    yield Target("journal of a sweep", events, read_sweep, keep(events), are_fewer_events, is_earlier_end)
    page = [sweep.path / "sweep.yaml"]
    yield Target("sweep.yaml", page, read_sweep, keep(page))


def is_beginning(whole: Any, got: Any) -> bool:
    """Whether the last records are not there, and the others are what they were."""
    return got == whole[: len(got)]


def is_earlier_end(whole: Any, got: Any) -> bool:
    """Whether the last events are not there: every job but the last of them has the event that it had."""
    return are_fewer_events(whole, got) and [pair for pair in got[1][:-1] if pair not in whole[1]] == []


def are_fewer_events(whole: Any, got: Any) -> bool:
    """Whether lines of the journal were left out: a job then has its event before, or none."""
    before = dict(whole[1])
    return got[::2] == whole[::2] and all(event in (before.get(job), "started") for job, event in got[1])
