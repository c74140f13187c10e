"""Time from the shell to the message of every kind of data mistake, by `aptlab check` and by `aptlab train`.

    python benchmarks/data_mistakes.py [--rounds 3]

Each is typed as a user types it, in a process of its own, and its message is compared with what it must say: a mistake
that is told as another one, or not told, ends the benchmark. CPU seconds are those of the process and its children,
user and system together; they say more than wall seconds where other work runs beside.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import spread, table, write

LONG = "To be, or not to be, that is the question.\n" * 200
LIMIT = 1.5  # seconds in which a mistake is told
MISTAKES = {  # name -> what is typed, and what the message must have
    "no such file": ("data.files=gone.txt", r"data\.files=gone\.txt matches no file"),
    "a glob without a match": ("data.files=none*.txt", r"data\.files=none\*\.txt matches no file"),
    "a folder": ("data.files=texts", r"data\.files=texts is a folder"),
    "an unknown kind of file": ("data.files=a.pdf", r"a\.pdf is no text file aptlab can read"),
    "an empty file": ("data.files=empty.txt", r"data\.files=empty\.txt has no text"),
    "blank lines only": ("data.files=blank.jsonl", r"data\.files=blank\.jsonl has no text"),
    "another encoding": ("data.files=latin.txt", r"latin\.txt, line 1: not UTF-8"),
    "a wrong field": ("data.files=body.jsonl", r"source\.field=text: body\.jsonl, line 1: has no field 'text'"),
    "a broken row": ("data.files=broken.jsonl", r"broken\.jsonl, line 2: bad JSON"),
    "a number for a text": ("data.files=number.jsonl", r"line 1: field 'text' expects text, got int"),
    "bad rows alone, left out": ("data.files=number.jsonl source.on_bad=skip", r"number\.jsonl has no text"),
    "a damaged Parquet file": ("data.files=broken.parquet", r"broken\.parquet, line 1: damaged parquet"),
    "a text shorter than a row": ("data.files=short.txt", r"data\.files=short\.txt has 7 bytes of text, too few"),
    "a training side without a row": (
        "data.files=good.txt tokenizer=bytes context=8500",
        r"context=8500 is longer than the train text",
    ),
    "a validation side without a row": (
        "data.files=tiny.txt tokenizer=bytes context=2 data.batch=1",
        r"context=2 is longer than the val text",
    ),
    "an epoch without a batch": (
        "data.files=good.txt tokenizer=bytes context=64 data.batch=200",
        r"data\.batch=200 on 1 device needs 200 rows",
    ),
    "no tokenizer.json": ("tokenizer=file tokenizer.path=broken.json", r"tokenizer\.path=broken\.json is no tokenizer"),
    "rows without a trained length": ("data=mixed", r"data\.rows\.original_len=null, and the rope has none"),
    "a wrong word for bad rows": ("data.files=good.txt source.on_bad=skipp", r"on_bad.*did you mean skip"),
    "files and a data set": ("data.files=good.txt source=hub", r"chooses source=text, and source=hub is given too"),
}


def write_files(folder: Path) -> None:
    """The files that the mistakes are made with."""
    texts = {"good.txt": LONG, "short.txt": "To be.\n", "tiny.txt": "To be or not to be", "empty.txt": "", "a.pdf": ""}
    texts |= {"blank.jsonl": "\n \n", "number.jsonl": '{"text": 5}\n', "broken.json": "{}"}
    texts |= {"broken.jsonl": '{"text": "a"}\n{"text": \n', "body.jsonl": json.dumps({"body": LONG}) + "\n"}
    texts |= {"broken.parquet": "PAR1 nonsense"}
    for name, text in texts.items():
        (folder / name).write_text(text)
    (folder / "latin.txt").write_bytes(b"caf\xe9\n")
    (folder / "texts").mkdir()


def time_mistake(command: str, words: str, message: str, folder: Path) -> tuple[float, float]:
    """Wall and CPU seconds; SystemExit where another thing is said, or nothing."""
    # Byte code is kept, as an installation has it, whatever this shell says.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    environment |= {"APTLAB_CACHE": str(folder / "cache"), "PYTHONPYCACHEPREFIX": str(folder / "bytecode")}
    before, started = os.times(), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "aptlab", command, *words.split()],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=120,
    )
    wall, after = time.perf_counter() - started, os.times()
    if done.returncode != 2 or re.search(message, done.stderr) is None:
        raise SystemExit(f"aptlab {command} {words}: exit {done.returncode}, which said:\n{done.stderr}{done.stdout}")
    cpu = (after.children_user - before.children_user) + (after.children_system - before.children_system)
    return wall, cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    rows, late = [], 0
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_files(folder)
        for command in ("check", "train"):  # writes byte code and warms the file cache
            time_mistake(command, *MISTAKES["no such file"], folder)
        for name, (words, message) in MISTAKES.items():
            cells = []
            for command in ("check", "train"):
                walls, cpus = zip(*(time_mistake(command, words, message, folder) for _ in range(rounds)), strict=True)
                late += sorted(cpus)[rounds // 2] > LIMIT
                cells += [spread(walls), spread(cpus)]
            rows.append((name, f"`{words}`", *cells))
            print(rows[-1], flush=True)
    head = ("mistake", "typed", "check, wall", "check, CPU", "train, wall", "train, CPU")
    body = (
        f"Seconds from the shell to the message, median (min to max) of {rounds}; each must be told within {LIMIT} "
        f"seconds of CPU: {late} of {2 * len(MISTAKES)} medians are above it. None imports torch.\n\n"
        + table(head, rows)
    )
    write("data_mistakes", "Data mistakes", body, "aptlab", "hydra-core", "omegaconf", "pyarrow")


if __name__ == "__main__":
    main()
