"""F1, F2, F4: runs killed at random places, inside saves and again and again, then continued to the bit."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from benchmarks.fault_campaigns.campaign import count_tries, make_random, open_place, spread_over
from benchmarks.fault_campaigns.compare import find_last_step, is_same_run
from benchmarks.fault_campaigns.engine import Ended
from benchmarks.fault_campaigns.place import COMMON, STEPS, Place
from benchmarks.fault_campaigns.row import Row

KINDS = {
    "one process": [],
    "accumulation of 3": ["trainer.accumulate_grad_batches=3"],
    "bf16-mixed": ["precision=bf16-mixed"],
    "smooth=memory": ["smooth=memory"],
}
EVERY = 3  # steps between saves (place.COMMON)
WRITES = 400  # more than one save of the debug model has, fewer than two
POINTS = ("begin", "after_write", "after_fsync", "after_rename", "after_manifest", "after_prune")
CHAIN = 4  # kills of one run


@dataclass
class Subject:
    """A kind of run, and one of it that nothing happened to."""

    place: Place
    words: list[str]
    batches: int = 1  # a step
    whole: Path = field(init=False)

    def __post_init__(self) -> None:
        self.whole, ended = self.start()
        if ended.code != 0:
            raise RuntimeError(f"the run that nothing happens to ends with {ended.code}:\n{ended.text}")

    def start(self, fault: str | None = None, env: dict[str, str] | None = None) -> tuple[Path, Ended]:
        folder = self.place.make_name()
        return folder, self.place.train(folder, *self.list_words(folder), fault=fault, env=env)

    def list_words(self, folder: Path) -> list[str]:
        return [*COMMON, "evals=none", *self.words, f"run_dir={folder}"]

    def finish(self, folder: Path) -> str:
        """Go on, from the start where nothing was saved yet; what is wrong with the end, or nothing."""
        if find_last_step(folder):
            ended = self.place.resume(folder)
        else:
            folder, ended = self.start()
        if ended.code != 0:
            return f"going on ends with {ended.code}: {ended.text.strip().splitlines()[-1:]}"
        return "" if is_same_run(folder, self.whole) else "the continued run ends otherwise"


def run(count: int, seed: int) -> list[Row]:
    """About `count` kills: half at a random batch, a quarter from outside at a random time, a quarter inside a save."""
    rng = make_random(seed, "kills")
    with open_place() as place:
        rows = []
        subjects = {k: Subject(place, words, 3 if "accumulation" in k else 1) for k, words in KINDS.items()}
        for (kind, subject), tries in zip(subjects.items(), spread_over(count // 2, len(KINDS)), strict=True):
            ats = [rng.randint(1, STEPS * subject.batches) for _ in range(tries)]
            attempts = [partial(kill_at_batch, subject, at) for at in ats]
            rows.append(count_tries("F1 kill -9", f"at a random batch, {kind}", attempts))
        long = Subject(place, ["trainer.max_steps=60"])
        chains = [[rng.uniform(0.5, 4.0) for _ in range(CHAIN)] for _ in range(max(1, count // 4 // CHAIN))]
        attempts = [partial(kill_from_outside, long, delays) for delays in chains]
        rows.append(count_tries("F1 kill -9", f"from outside at random times, {CHAIN} in each run", attempts))
        one = subjects["one process"]
        points = [("mid_write", WRITES + 40), *((name, 2) for name in POINTS)]
        each = max(1, count // 4 // len(points) // 2)
        for where, env in (("", {}), (", TMPDIR on another file system", {"TMPDIR": "/dev/shm"})):
            if not env or Path("/dev/shm").is_dir():
                attempts = [partial(kill_in_save, one, name, at, env) for name, at in points for _ in range(each)]
                rows.append(count_tries("F2 kill -9 in a save", f"at each of {len(points)} points{where}", attempts))
        stops = [partial(stop_thrice, one)] * max(1, count // 50)
        rows.append(count_tries("F4 stopped three times", "SIGTERM, SIGTERM in validation, SIGINT", stops))
    return rows


def kill_at_batch(subject: Subject, at: int) -> str:
    """Killed before batch `at`: no more than one interval is lost, and the rest is the same."""
    folder, ended = subject.start(fault=f"train.batch:{at}")
    lost = (at - 1) // subject.batches - find_last_step(folder)
    if ended.code != 137:
        return f"exit code {ended.code} instead of 137"
    return subject.finish(folder) if lost <= EVERY else f"{lost} steps lost"


def kill_from_outside(subject: Subject, delays: list[float]) -> str:
    """Killed from outside after each delay and continued each time."""
    place, folder = subject.place, subject.place.make_name()
    for delay in delays:
        saved = find_last_step(folder)
        if saved:
            command = place.begin(Path(f"{folder}.log"), "train", f"ckpt={folder}")
        else:
            folder = place.make_name()
            command = place.begin(Path(f"{folder}.log"), "train", *subject.list_words(folder))
        time.sleep(delay)
        os.kill(command.pid, signal.SIGKILL)
        command.wait()
        if find_last_step(folder) < saved:
            return "a saved step was lost"
    return subject.finish(folder)


def kill_in_save(subject: Subject, point: str, at: int, env: dict[str, str]) -> str:
    """Killed at a point of a save: the checkpoint before it stands, and the rest is the same."""
    folder, ended = subject.start(fault=f"save.{point}:{at}", env=env)
    if ended.code != 137:
        return f"{point}: exit code {ended.code} instead of 137"
    return subject.finish(folder) if find_last_step(folder) else f"{point}: no valid checkpoint"


def stop_thrice(subject: Subject) -> str:
    """Stopped in training, in validation and in training again."""
    folder, first = subject.start(fault="train.batch:3:TERM")
    second = subject.place.resume(folder, fault="val.batch:2:TERM")
    third = subject.place.resume(folder, fault="train.batch:2:INT")
    codes = (first.code, second.code, third.code)
    return subject.finish(folder) if codes == (143, 143, 130) else f"exit codes {codes}"
