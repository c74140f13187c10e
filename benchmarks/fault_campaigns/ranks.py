"""Two ranks, one of which stops, hangs, is killed, is refused or loses its launcher, in every phase of a run.

A try holds when all processes are gone in time, with the promised exit codes, one line about it on the screen, a valid
checkpoint, and weights, optimizer state and metrics of the resumed run equal to those of the unbroken one.
Five tries run with the real limits (30 and 60 s), the others with short ones.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from benchmarks.fault_campaigns.compare import is_same_run  # noqa: E402
from benchmarks.fault_campaigns.engine import read_state, start_command  # noqa: E402
from benchmarks.fault_campaigns.row import Row  # noqa: E402

from aptlab.faults import REACHED  # noqa: E402

ARGS = ["size=debug", "trainer=debug", "logger=csv", "context=32", "data.batch=4", "data.val_batches=2", "evals=null"]
ARGS += ["callbacks.checkpoints.every=3", "device=ddp", "device.accelerator=cpu"]
SHORT, REAL = (6.0, 14.0), (30.0, 60.0)  # silent, end
REAL_TRIES = 5
SECONDS = 12.0  # in which the other ranks are gone where one has failed, died or been asked to stop
SLACK = 1.0  # between two looks at the processes
START = 600.0  # seconds until the fault is reached, on a machine that has much else to do
PHASES = {"training": "train.batch:7", "validation": "val.batch:3", "a save": "save.collect:2"}
STOPPED = r"rank {0} \(process \d+ on .*\), last seen in .*, has not answered for \d+ s.*last valid checkpoint: \S+"
DEAD = r"rank {0} \(process .*\), last seen in .*(killed by SIGKILL|has gone away).*last valid checkpoint: \S+"


@dataclass(frozen=True, kw_only=True)
class Case:
    """A fault and what is promised of it.

    fault   APTLAB_FAULT, with its rank
    codes   exit codes of the ranks, as a shell tells them; None for any but 0
    words   pattern of the one line
    within  seconds until all ranks are gone; None: the limit of the watch
    send    a signal to the other rank, once the fault has stopped one
    mode    ranks (started side by side), launcher (rank 0 starts rank 1), torchrun
    saved   whether a checkpoint must be there
    kill    whether the launcher itself is killed, once the fault has stopped a rank
    """

    name: str
    fault: str
    codes: tuple[int | None, ...]
    words: str
    within: float | None = SECONDS
    send: str = ""
    mode: str = "ranks"
    saved: bool = True
    kill: bool = False


def list_cases() -> list[Case]:
    """Every fault of the campaign, once."""
    cases = []
    for rank, (phase, where) in itertools.product((0, 1), PHASES.items()):
        for what, words in (("STOP", STOPPED), ("KILL", DEAD)):
            codes = (137, 1) if rank == 0 else (1, 137)
            name = f"rank {rank} {'stopped' if what == 'STOP' else 'killed'} in {phase}"
            within = None if what == "STOP" else SECONDS
            fault = f"{where}:{what}:{rank}"
            cases.append(Case(name=name, fault=fault, codes=codes, words=words.format(rank), within=within))
    for rank in (0, 1):
        words = (
            rf"rank {rank} in .* has done nothing for \d+ s; waiting: rank {1 - rank} in .*last valid checkpoint: \S+"
        )
        name, fault = f"rank {rank} hangs in its own code", f"train.batch:7:HANG:{rank}"
        cases.append(Case(name=name, fault=fault, codes=(1, 1), words=words, within=None))
    for name, code in (("TERM", 143), ("INT", 130)):
        codes, fault = (code, 137), "train.batch:7:STOP:1"
        words = STOPPED.format(1)
        case = Case(name=f"SIG{name} while a collective blocks", fault=fault, codes=codes, words=words, within=15.0)
        cases.append(replace(case, send=name))
    for mode, codes in (("ranks", (1, 1)), ("launcher", (1,))):
        words = "rank 1 failed: a test asked for a failure at start.build"
        case = Case(name="", fault="start.build:1:FAIL:1", codes=codes, words=words, saved=False, mode=mode)
        cases.append(replace(case, name=f"rank 1 refused at its start, {mode}"))
    words = "rank 0 failed: a test asked for a failure at start.build"
    case = Case(name="rank 0 refused at its start", fault="start.build:1:FAIL:0", codes=(1, 1), words=words)
    cases.append(replace(case, saved=False))
    words = "rank 1 failed: a test asked for a failure at train.batch"
    cases.append(Case(name="an error on rank 1 alone", fault="train.batch:7:FAIL:1", codes=(1, 1), words=words))
    launched = Case(name="", fault="train.batch:7:STOP:1", codes=(1,), words=STOPPED.format(1), within=None)
    cases.append(replace(launched, name="rank 1 stopped, rank 0 its launcher", mode="launcher"))
    fault, words = "train.batch:7:KILL:1", DEAD.format(1)
    cases.append(Case(name="rank 1 killed, rank 0 its launcher", fault=fault, codes=(1,), words=words, mode="launcher"))
    fault, words = "train.batch:7:KILL:0", DEAD.format(0)
    cases.append(Case(name="the launcher, rank 0, killed", fault=fault, codes=(137,), words=words, mode="launcher"))
    fault, words = "train.batch:7:STOP:0", r"its launcher \(process \d+\) has gone away.*last valid checkpoint: \S+"
    case = Case(name="torchrun killed", fault=fault, codes=(137,), words=words, mode="torchrun", kill=True, within=None)
    return [*cases, case]


@dataclass
class Try:
    """One run that is broken: its processes and what they printed."""

    case: Case
    folder: Path
    limits: tuple[float, float] = SHORT
    began: float = 0.0
    seconds: float = 0.0
    codes: tuple[int, ...] = ()
    problem: str = ""

    def __str__(self) -> str:
        return f"{self.case.name} ({self.limits[1]:.0f} s)"

    @property
    def log(self) -> Path:
        """Both streams of all ranks."""
        return self.folder.with_suffix(".log")

    def run(self) -> str:
        """Break a run; what did not hold, or ""."""
        argv = ["train", *ARGS, f"run_dir={self.folder}"]
        argv += [f"callbacks.watchdog.silent={self.limits[0]}", f"callbacks.watchdog.end={self.limits[1]}"]
        ranks = start_ranks(argv, self.case.mode, self.log, self.case.fault)
        stopped = self._wait_for_fault(ranks)
        self.began = time.monotonic()
        if self.case.send:
            os.kill(next(one.pid for one in ranks if one.pid != stopped), signal.Signals[f"SIG{self.case.send}"])
        if self.case.kill:
            os.kill(ranks[0].pid, signal.SIGKILL)
        limit = self.limits[1] if self.case.within is None else self.case.within
        self.codes = wait_for_end(ranks, self.folder, limit + SLACK)
        self.seconds = time.monotonic() - self.began
        return self.problem or self._judge(limit)

    def _wait_for_fault(self, ranks: list[Started]) -> int:
        """Until the fault is reached; returns the process that it has stopped, or 0."""
        deadline = time.monotonic() + START
        while time.monotonic() < deadline:
            time.sleep(0.05)
            if REACHED not in read_text(self.log):
                if all(one.poll() is not None for one in ranks):
                    break
                continue
            pids = {*(one.pid for one in ranks), *find_processes(self.folder)}
            stopped = [pid for pid in pids if read_state(pid) == "T"]
            if stopped or "STOP" not in self.case.fault:
                return stopped[0] if stopped else 0
        self.problem = "the fault was never reached"
        return 0

    def _judge(self, limit: float) -> str:
        """What was promised and did not come."""
        from aptlab.checkpoint import find_checkpoint

        if self.seconds > limit + SLACK:
            return f"all were gone after {self.seconds:.0f} s, not {limit:.0f}"
        if any(code == 0 or (want is not None and code != want) for code, want in zip(self.codes, self.case.codes)):
            return f"exit codes {self.codes}, not {self.case.codes}"
        text = read_text(self.log)
        lines = [line for line in text.splitlines() if re.search(self.case.words, line)]
        ends = [line for line in lines if "the run is over by" not in line]
        if len(ends) != 1:
            return f"{len(ends)} lines match {self.case.words}"
        if "Traceback" in text or "frame #" in text:
            return "a traceback"
        if not self.case.saved:
            return ""
        last = find_checkpoint(self.folder)
        if "last valid checkpoint" in ends[0] and str(last) not in ends[0]:
            return f"{last} is not the checkpoint that was told"
        return ""


class Started(Protocol):
    """A process that was started: one of `subprocess`, or a command of `engine`."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None: ...


def start_ranks(argv: list[str], mode: str, log: Path, fault: str = "") -> list[Started]:
    """Start `aptlab` on two ranks; returns the processes that were started from here."""
    env = {"OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"} | ({"APTLAB_FAULT": fault} if fault else {})
    if mode == "torchrun":
        command = ["-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={free_port()}", "-m", "aptlab"]
        return [start_program([*command, *argv], env, log)]
    if mode == "launcher":
        return [start_program(["-m", "aptlab", *argv], env, log)]
    env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    return [start_command(*argv, out=log, env=env | {"RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(2)]


def start_program(args: list[str], env: dict[str, str], log: Path) -> Started:
    """A new Python with its output in the log."""
    with open(log, "a") as file:
        return subprocess.Popen([sys.executable, *args], env=os.environ | env, stdout=file, stderr=file)


def wait_for_end(ranks: list[Started], folder: Path, seconds: float) -> tuple[int, ...]:
    """Wait for every process of a run, and kill what is left; exit codes as a shell tells them, 0 for those."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if all(one.poll() is not None for one in ranks) and not find_processes(folder):
            break
        time.sleep(0.1)
    else:
        time.sleep(SLACK)  # so that it is seen to be late
    codes = [one.poll() for one in ranks]
    for pid in {*find_processes(folder), *(one.pid for one, code in zip(ranks, codes) if code is None)}:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return tuple(128 - code if code is not None and code < 0 else code or 0 for code in codes)


def find_processes(folder: Path) -> list[int]:
    """Live processes that were started with this run folder."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = (place / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if f"run_dir={folder}".encode() in words and read_state(int(place.name)) not in "Z?":
            found.append(int(place.name))
    return found


def read_text(path: Path) -> str:
    return path.read_text(errors="replace") if path.is_file() else ""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def resume(folder: Path, whole: Path) -> str:
    """Go on with a broken run; how its end differs from the unbroken one, or ""."""
    log = folder.with_suffix(".resumed.log")
    codes = wait_for_end(start_ranks(["train", f"ckpt={folder}"], "ranks", log), folder, START)
    if codes != (0, 0):
        return f"the resumed run ended with {codes}"
    return "" if is_same_run(folder, whole) else "the resumed run ends with other numbers"


def choose_tries(count: int, seed: int, root: Path, only: str = "") -> Iterator[Try]:
    """Each case in its turn, the real limits for a few, spread by the seed."""
    cases, rng = [case for case in list_cases() if re.search(only, case.name)], random.Random(seed)
    chosen = [cases[number % len(cases)] for number in range(count)]
    slow = [number for number, case in enumerate(chosen) if case.within is None and case.mode == "ranks"]
    real = set() if only else set(rng.sample(slow, min(REAL_TRIES, len(slow))))
    for number, case in enumerate(chosen):
        yield Try(case, root / f"run-{number}", REAL if number in real else SHORT)


def train_whole(root: Path) -> Path:
    """The run that nothing happens to."""
    whole, log = root / "whole", root / "whole.log"
    codes = wait_for_end(start_ranks(["train", *ARGS, f"run_dir={whole}"], "ranks", log), whole, START)
    if codes != (0, 0):
        raise RuntimeError(f"the unbroken run ended with {codes}: {read_text(log)[-1000:]}")
    return whole


def run_tries(tries: list[Try], whole: Path | None, jobs: int) -> Iterator[tuple[Try, str, float]]:
    """Each try, what did not hold, and its seconds; `jobs` at a time, which mostly wait."""
    with ThreadPoolExecutor(jobs) as pool:
        for attempt, problem in zip(tries, pool.map(lambda one: make_try(one, whole), tries)):
            print(f"{attempt}: {problem or 'held'}, {attempt.seconds:.1f} s", flush=True)
            yield attempt, problem, attempt.seconds


def make_try(attempt: Try, whole: Path | None) -> str:
    """Break a run and resume it; what did not hold, or ""."""
    try:
        problem = attempt.run()
        return resume(attempt.folder, whole) if whole and not problem and attempt.case.saved else problem
    except Exception as error:  # a try that cannot be judged did not hold
        return f"{type(error).__name__}: {error}"


def run(count: int = 40, seed: int = 0, *, only: str = "", resumes: bool = True, jobs: int = 3) -> list[Row]:
    """Break `count` runs on two ranks; one row. `only` chooses cases by their names, and takes the short limits."""
    root = Path(tempfile.mkdtemp())
    os.environ["APTLAB_CACHE"] = str(root / "cache")
    whole = train_whole(root) if resumes else None
    tries = list(choose_tries(count, seed, root, only))
    results = list(run_tries(tries, whole, jobs))
    failures = [f"{attempt}: {problem}" for attempt, problem, _ in results if problem]
    longest = max(seconds for _, _, seconds in results)
    if failures:
        print(f"logs are kept in {root}")
    else:
        shutil.rmtree(root)
    note = "; ".join(failures[:3]) or f"all gone after {longest:.0f} s at most, of 60 s allowed"
    how = "one of two ranks stopped, hung, killed or refused in every phase; SIGTERM in a collective; launcher killed"
    return [Row("F14 rank failure", how, count, count - len(failures), note)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="cases whose names match this, with the short limits")
    parser.add_argument("--jobs", type=int, default=3, help="tries at a time")
    parser.add_argument("--rows", help="file for the rows, as JSON")
    parser.add_argument("--no-resume", action="store_true", help="leave out the comparison with the unbroken run")
    args = parser.parse_args()
    rows = run(args.count, args.seed, only=args.only, resumes=not args.no_resume, jobs=args.jobs)
    print(*rows, sep="\n")
    if args.rows:
        Path(args.rows).write_text(json.dumps([vars(row) for row in rows]))
    sys.exit(any(row.held < row.tried for row in rows))


if __name__ == "__main__":
    main()
