"""Signals that ask a run to end, in training, at the first step, in validation, in a save and in the report."""

from __future__ import annotations

import random
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.fault_campaigns.forked import STEPS, Workshop, count_failures
from benchmarks.fault_campaigns.row import Row

CODES = {"TERM": 143, "INT": 130, "USR1": 143, "HUP": 129}
WRITES = 300  # of one save of the debug model
PLACES = {
    "first step": lambda source: "train.batch:1",
    "training": lambda source: f"train.batch:{source.randint(2, STEPS)}",
    "validation": lambda source: f"val.batch:{source.randint(1, 2)}",
    "save": lambda source: source.choice((f"save.mid_write:{source.randint(1, 3 * WRITES)}", "save.after_rename:2")),
    "report": lambda source: source.choice(("report.begin:1", "report.end:1")),
}


def try_signal(shop: Workshop, folder: Path, place: str, name: str) -> list[str]:
    """One run that is asked to end at a place; what did not hold."""
    attempt, problems = shop.start(folder, fault=f"{place}:{name}"), []
    if attempt.code != CODES[name]:
        problems.append(f"exit code {attempt.code}")
    if attempt.traceback:
        problems.append("a traceback")
    report = place.startswith("report")
    if attempt.saved is None or (report and (attempt.saved, attempt.status) != (STEPS, "trained")):
        problems.append(f"step {attempt.saved} is saved and the result is {attempt.status}")
    way = f"{'finish it' if report else 'continue'} with: aptlab train {' '.join(shop.list_resume_words(folder))}"
    if f"stopped by SIG{name}" not in attempt.last_line or not attempt.last_line.endswith(way):
        problems.append(f"the last line says {attempt.last_line!r}")
    again = shop.resume(folder)
    if again.code != 0 or again.status != "finished" or again.traceback:
        problems.append(f"resumed: exit code {again.code}, {again.status}, {again.last_line!r}")
    elif not shop.ends_as_whole(folder):
        problems.append("the resumed end differs")
    return [f"{place}:{name}: {text}" for text in problems]


def run(count: int = 40, seed: int = 0) -> list[Row]:
    """So many runs, every place with every signal in turn."""
    source = random.Random(seed)
    pairs = [(where, name) for where in PLACES for name in CODES]
    found: dict[str, list[list[str]]] = {where: [] for where in PLACES}
    with tempfile.TemporaryDirectory() as name:
        shop = Workshop(Path(name))
        for number in range(count):
            where, signal = pairs[number % len(pairs)]
            try:
                found[where].append(try_signal(shop, Path(name) / f"run-{number}", PLACES[where](source), signal))
            except Exception as error:  # a campaign counts, whatever happens
                found[where].append([f"{where}, {signal}: {type(error).__name__}: {error}"])
    names = ", ".join(f"SIG{each}" for each in CODES)
    return [
        Row(f"F3 signal, {where}", names, len(tries), *count_failures(tries)) for where, tries in found.items() if tries
    ]


if __name__ == "__main__":
    for row in run(*(int(word) for word in sys.argv[1:])):
        print(row)
