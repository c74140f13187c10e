"""Break real runs on purpose, through the command line, and compare what comes out to the bit.

Prints and writes a table: fault, tries, passed. A try passes when the resumed run ends with weights, optimizer state
and metrics equal to those of a run that nothing happened to, no more work than one save interval was lost, and the exit
code is the promised one. `--quick` does two tries of each.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

COMMON = ["size=debug", "trainer=debug", "logger=csv", "context=32", "data.batch=4", "callbacks.checkpoints.every=3"]
STEPS = 10
WRITES = 400  # more than one save of the debug model has (314), fewer than two
KINDS = {
    "one process": [],
    "accumulation 3": ["trainer.accumulate_grad_batches=3"],
    "bf16-mixed": ["precision=bf16-mixed"],
    "smooth=memory": ["smooth=memory"],
    "two ranks": ["device=ddp", "device.accelerator=cpu"],
}


@dataclass
class Place:
    """A temporary folder in which every run gets a folder of its own."""

    root: Path
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def new(self) -> Path:
        return self.root / f"run-{next(self.numbers)}"

    def train(self, run: Path, *args: str, fault: str | None = None, env: dict[str, str] | None = None) -> int:
        """`aptlab train`; the exit code as a shell tells it."""
        variables = os.environ | {"OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"} | (env or {})
        variables.pop("APTLAB_FAULT", None)
        if fault:
            variables["APTLAB_FAULT"] = fault
        command = [sys.executable, "-m", "aptlab", "train", *args]
        with open(f"{run}.log", "a") as log:
            code = subprocess.run(command, stdout=log, stderr=log, cwd=self.root, env=variables).returncode
        return 128 - code if code < 0 else code

    def start(self, kind: str, **options) -> tuple[Path, int]:
        run = self.new()
        return run, self.train(run, *COMMON, *KINDS[kind], f"run_dir={run}", **options)

    def resume(self, run: Path, **options) -> int:
        return self.train(run, f"ckpt={run}", **options)


def same(run: Path, whole: Path) -> bool:
    """Weights, optimizer state and logged losses equal to the bit."""
    from tests.faults.parts import differences, file_state

    from aptlab.checkpoint import find_checkpoint
    from aptlab.runs import MetricsTable

    if differences(file_state(find_checkpoint(run)), file_state(find_checkpoint(whole))):
        return False
    mine, theirs = (MetricsTable.read(path / "metrics.csv").rows for path in (run, whole))
    names = ("train/loss", "val/loss", "lr", "grad_norm")
    return [[row.get(n) for n in names] for row in mine.values()] == [
        [row.get(n) for n in names] for row in theirs.values()
    ]


def step_of_last(run: Path) -> int:
    from aptlab.checkpoint import find_checkpoint, read_manifest

    return read_manifest(find_checkpoint(run)).step


def killed(place: Place, whole: Path, kind: str, at: int) -> bool:
    """kill -9 before batch `at` of the run, then resume."""
    batches = 3 if "accumulation" in kind else 1
    run, code = place.start(kind, fault=f"train.batch:{at}")
    lost = (at - 1) // batches - step_of_last(run)
    return code in ((1, 137) if kind == "two ranks" else (137,)) and lost <= 3 and ended(place, run, whole)


def ended(place: Place, run: Path, whole: Path) -> bool:
    return place.resume(run) == 0 and same(run, whole)


def stopped(place: Place, whole: Path, kind: str, where: str, name: str, expected: int) -> bool:
    run, code = place.start(kind, fault=f"{where}:{name}")
    saved = step_of_last(run)
    return code == (130 if name == "INT" else 143) and saved == expected and ended(place, run, whole)


def twice(place: Place, whole: Path) -> bool:
    run, first = place.start("one process", fault="train.batch:3:TERM")
    second = place.resume(run, fault="val.batch:2:TERM")
    third = place.resume(run, fault="train.batch:2:INT")
    return (first, second, third) == (143, 143, 130) and ended(place, run, whole)


def in_save(place: Place, whole: Path, point: str, count: int, env: dict[str, str] | None = None) -> bool:
    run, code = place.start("one process", fault=f"save.{point}:{count}", env=env)
    if not list((run / "checkpoints").glob("*.json")):
        return False
    return code == 137 and ended(place, run, whole)


def flipped(place: Place, whole: Path, seed: int) -> bool:
    run, _ = place.start("one process", fault="train.batch:9")
    newest = sorted((run / "checkpoints").glob("*.ckpt"))[-1]
    data, rng = bytearray(newest.read_bytes()), random.Random(seed)
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    newest.write_bytes(data)
    strict = place.train(run, f"ckpt={newest}")
    return strict == 2 and ended(place, run, whole)


def campaign(place: Place, quick: bool) -> Iterator[tuple[str, list[Callable[[], bool]]]]:
    """(fault, tries)"""
    wholes = {}
    for kind in KINDS:
        run, code = place.start(kind)
        assert code == 0, Path(f"{run}.log").read_text()
        wholes[kind] = run
    one, rng = wholes["one process"], random.Random(0)
    for kind, whole in wholes.items():
        batches = STEPS * (3 if "accumulation" in kind else 1)
        tries = 10 if kind == "one process" else 3
        ats = rng.sample(range(batches * 4 // 10 + 1, batches + 1), min(tries, batches * 6 // 10))
        more = [rng.randint(batches * 4 // 10 + 1, batches) for _ in range(tries - len(ats))]
        yield (
            f"kill -9 at a random batch, {kind}",
            [lambda a=at, w=whole, k=kind: killed(place, w, k, a) for at in [*ats, *more]],
        )
    places = [("train.batch:1", 0), ("train.batch:5", 4), ("val.batch:1", 5), ("val.batch:2", 5)]
    for name in ("TERM", "INT", "USR1"):
        yield (
            f"SIG{name} in training, at the first step, in validation",
            [lambda w=where, s=step, n=name: stopped(place, one, "one process", w, n, s) for where, step in places],
        )
    yield (
        "SIGTERM to two ranks",
        [
            lambda w=where, s=step: stopped(place, wholes["two ranks"], "two ranks", w, "TERM", s)
            for where, step in places[:3]
        ],
    )
    yield "stopped three times: training, validation, training", [lambda: twice(place, one)] * 2
    names = ["begin", "after_write", "after_fsync", "after_rename", "after_manifest", "after_prune"]
    points = [("mid_write", WRITES + 40), *((name, 2) for name in names)]
    yield "kill -9 inside a save", [lambda p=p, n=n: in_save(place, one, p, n) for p, n in points]
    if Path("/dev/shm").is_dir():
        other = {"TMPDIR": "/dev/shm"}
        yield (
            "kill -9 inside a save, TMPDIR on another file system",
            [lambda p=p, n=n: in_save(place, one, p, n, other) for p, n in points],
        )
    yield "bit flip in the newest checkpoint", [lambda s=s: flipped(place, one, s) for s in range(2 if quick else 5)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two tries of each fault")
    parser.add_argument("--jobs", type=int, default=2, help="tries at a time")
    args = parser.parse_args()
    from common import table, write

    root = Path(tempfile.mkdtemp())
    rows, failed = [], []
    try:
        for fault, tries in campaign(Place(root), args.quick):
            chosen = tries[:2] if args.quick else tries
            with ThreadPoolExecutor(args.jobs) as pool:
                passed = list(pool.map(lambda attempt: attempt(), chosen))
            rows.append([fault, len(passed), sum(passed)])
            print(*rows[-1], sep="\t", flush=True)
            failed += [fault] * (not all(passed))
    finally:
        if failed:
            print(f"logs are kept in {root}")
        else:
            shutil.rmtree(root)
    body = f"{table(['fault', 'tries', 'passed'], rows)}\n\n{(__doc__ or '').split(chr(10), 2)[2].strip()}"
    write("faults", "Runs broken on purpose", body, "torch", "lightning", "aptlab")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
