"""A disk that becomes full at every moment of a run: a real one, a small tmpfs that is filled while the run is stopped.

Needs the right to mount one; `unshare -Urm python benchmarks/faults.py` gives it to a user.
"""

from __future__ import annotations

import errno
import random
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.fault_campaigns.forked import STEPS, Attempt, Workshop, count_failures, find_saved_step
from benchmarks.fault_campaigns.row import Row

SIZE = 12  # MB: four checkpoints of the debug model, and twice what a save asks to be free
WRITES = 300  # of one save of the debug model
PLACES = ["train.batch", "val.batch", "save.begin", "save.mid_write", "save.after_write", "save.after_fsync"]
PLACES += ["save.after_rename", "save.after_manifest", "report.begin", "report.end"]
VISITS = {"train.batch": STEPS, "val.batch": 4, "save.mid_write": 3 * WRITES, "report.begin": 1, "report.end": 1}


@dataclass(frozen=True)
class Case:
    """Where and when the disk becomes full, how much is left, and how the run is to answer."""

    place: str
    visit: int
    left: int
    on_error: str
    reserve: bool

    def __str__(self) -> str:
        return f"{self.place}:{self.visit}, {self.left} bytes left, {self.on_error}, reserve={self.reserve}"


def fill_disk(folder: Path, left: int) -> None:
    """Fill the file system of a folder to the last byte but so many."""
    free = shutil.disk_usage(folder).free
    with open(folder / "filler", "wb", buffering=0) as file:
        try:
            for _ in range(max(free - left, 0) // 4096):
                file.write(bytes(4096))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise


def draw_cases(count: int, seed: int) -> list[Case]:
    """The places in turn, everything else by chance."""
    source = random.Random(seed)
    return [
        Case(
            place=(place := PLACES[number % len(PLACES)]),
            visit=source.randint(1, VISITS.get(place, 3)),
            left=source.choice((0, 50_000, 1_500_000)),
            on_error=source.choice(("stop", "continue")),
            reserve=source.random() < 0.7,
        )
        for number in range(count)
    ]


def try_case(shop: Workshop, disk: Path, case: Case) -> list[str]:
    """One run on a disk that becomes full; what did not hold."""
    folder, before = disk / "run", []
    words = (f"callbacks.checkpoints.on_error={case.on_error}", f"callbacks.checkpoints.reserve={case.reserve}")

    def watch() -> None:
        before.append(find_saved_step(folder))
        fill_disk(disk, case.left)

    attempt = shop.start(folder, *words, fault=f"{case.place}:{case.visit}:STOP", watch=watch)
    problems = judge_end(attempt, before[0] if before else None, filled=bool(before))
    (disk / "filler").unlink(missing_ok=True)
    if attempt.saved is None:
        shutil.rmtree(folder)
        again = shop.start(folder, *words)
    else:
        again = shop.resume(folder)
    if again.code != 0 or again.status != "finished" or again.traceback:
        problems.append(f"with space again: exit code {again.code}, {again.status}, {again.last_line!r}")
    elif not shop.ends_as_whole(folder):
        problems.append("the resumed end differs")
    return [f"{case}: {text}" for text in problems]


def judge_end(attempt: Attempt, before: int | None, *, filled: bool) -> list[str]:
    """What is wrong with the end of a run on a full disk."""
    saved, problems = attempt.saved, []
    if not filled:
        problems.append("the place was never reached")
    if attempt.code not in (0, 1):
        problems.append(f"exit code {attempt.code}")
    if attempt.code == 0 and (saved != STEPS or attempt.status != "finished"):
        problems.append(f"exit code 0 with step {saved} saved and the result {attempt.status}")
    if attempt.status == "finished" and saved != STEPS:
        problems.append("recorded as finished without its last weights")
    if before is not None and (saved is None or saved < before):
        problems.append(f"step {before} was saved before, {saved} afterwards")
    if attempt.traceback:
        problems.append("a traceback")
    named = ("go on with: aptlab train ckpt=", "no checkpoint could be written", "no step is saved", "finish it with:")
    if attempt.code == 1 and not any(text in attempt.last_line for text in named):
        problems.append(f"the last line says {attempt.last_line!r}")
    folder = attempt.folder / "checkpoints"
    if folder.is_dir() and (rest := [path.name for path in folder.glob(".*")]):
        problems.append(f"left over: {rest}")
    return problems


def run(count: int = 60, seed: int = 0) -> list[Row]:
    """So many runs, each on a file system of its own."""
    found = []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        shop = Workshop(root)
        for number, case in enumerate(draw_cases(count, seed)):
            disk = root / f"disk-{number}"
            disk.mkdir()
            mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}m", "tmpfs", str(disk)]
            if subprocess.run(mount, capture_output=True).returncode:
                return [Row("F6 disk full", "a small tmpfs", 0, 0, "a file system may not be mounted here")]
            try:
                found.append(try_case(shop, disk, case))
            except Exception as error:  # a campaign counts, whatever happens
                found.append([f"{case}: {type(error).__name__}: {error}"])
            finally:
                subprocess.run(["umount", str(disk)], capture_output=True)
    held, note = count_failures(found)
    return [Row("F6 disk full", "a tmpfs of 12 MB, filled at ten moments of a run", len(found), held, note)]


if __name__ == "__main__":
    for row in run(*(int(word) for word in sys.argv[1:])):
        print(row)
