"""One invocation of a sweep: run what is left of it, write the journal, say what happened."""

from __future__ import annotations

import shlex
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from aptlab.errors import AptlabError
from aptlab.report.table import format_number
from aptlab.runs import Result
from aptlab.sweep.folder import SweepFolder, read_log_tail, starts_run
from aptlab.sweep.interrupts import Interrupts
from aptlab.sweep.job import JobCommand, JobEvent, SweepJob
from aptlab.sweep.request import SweepRequest

COMMAND = (sys.executable, "-m", "aptlab", "train")


def run_sweep(request: SweepRequest, *, command: Sequence[str] | None = None) -> int:
    """Run a checked sweep; returns its exit code."""
    folder = SweepFolder.open(request.root, request.work.name, kind=request.work.kind, fresh=request.sweep.fresh)
    try:
        with Interrupts(folder.stop) as interrupts:
            session = SweepRun(request, folder, interrupts, tuple(command or COMMAND))
            session.run()
            return session.finish()
    finally:
        folder.close()


class SweepRun:
    """The jobs of one invocation and what became of them, by index."""

    def __init__(
        self, request: SweepRequest, folder: SweepFolder, interrupts: Interrupts, command: tuple[str, ...]
    ) -> None:
        self.request, self.folder = request, folder
        self._interrupts, self._command = interrupts, command
        self.jobs: dict[int, SweepJob] = {}
        self.todo: list[SweepJob] = []
        self.results: dict[int, Result] = {}
        self.failed: dict[int, str] = {}
        self.total = 0
        self._seconds: list[float] = []
        self._begun = time.monotonic()

    @property
    def interrupted(self) -> bool:
        """Whether the user wants the sweep to stop."""
        return self._interrupts.signal is not None

    def take(self, jobs: Sequence[SweepJob]) -> None:
        """Write numbered jobs down and sort them: finished before, failed before and left alone, to do."""
        self.write(jobs)
        last = self.folder.last_events()
        self._end_orphans([job for job in jobs if last.get(job.index) == "started"])
        for job in jobs:
            self.jobs[job.index] = job
            result = self.folder.result(job)
            if result is not None:
                self.results[job.index] = result
            elif last.get(job.index) == "failed" and not self.request.sweep.retry_failed:
                self.failed[job.index] = "failed before; sweep.retry_failed=true runs it again"
            else:
                self.todo.append(job)

    def _end_orphans(self, jobs: Sequence[SweepJob]) -> None:
        """Ask jobs that outlived an earlier, killed parent (as those of a cluster do) to save and end, and wait."""
        busy = [job for job in jobs if self.folder.busy(job)]
        if not busy:
            return
        print(f"waiting  for {len(busy)} job(s) of an earlier, killed sweep to save and end", flush=True)
        self.folder.stop.write_text(str(int(signal.SIGTERM)), encoding="ascii")
        end = time.monotonic() + self.request.launcher.grace
        while any(map(self.folder.busy, busy)) and time.monotonic() < end and not self.interrupted:
            time.sleep(0.2)
        if not self.interrupted:
            self.folder.stop.unlink(missing_ok=True)

    def add(self, job: SweepJob) -> None:
        """Write down a job that has just been thought of."""
        self.jobs[job.index] = job
        self.write([job])

    def write(self, jobs: Sequence[SweepJob]) -> None:
        """Bring sweep.yaml up to date."""
        self.folder.write(jobs, kind=self.request.work.kind, command=list(self.request.command))

    def task(self, job: SweepJob) -> JobCommand:
        """The command for a job: the rest of it if it holds a checkpoint, else all of it."""
        from aptlab.config.sweeps import format_override

        folder = self.folder.run_dir(job)
        resumed = has_checkpoint(folder)
        overrides = [o for o in job.overrides if not (resumed and starts_run(o))]
        if resumed:
            overrides.append(format_override("ckpt", str(folder)))
        else:
            (folder / "metrics.csv").unlink(missing_ok=True)  # of an attempt that saved nothing
        return JobCommand(
            index=job.index,
            name=job.name,
            command=(*self._command, *overrides, format_override("run_dir", str(folder))),
            log=str(self.folder.console(job)),
            stop=str(self.folder.stop),
            cwd=str(Path.cwd()),
            env={"APTLAB_SWEEP": self.folder.path.name},
        )

    def run(self) -> None:
        """Run all that is left."""
        self.request.work.open(self)
        before = f", {len(self.results)} finished before" if self.results else ""
        print(f"sweep    {shorten_path(self.folder.path)}")
        print(f"jobs     {self.total}{before}, {self.request.launcher.workers} at a time", flush=True)
        self.request.launcher.run(self.request.work.tasks(self), self.on_event)

    def on_event(self, event: JobEvent) -> None:
        """Note and print the start or the end of a job."""
        job = self.jobs[event.task.index]
        if event.kind == "started":
            resumed = any(word.startswith("ckpt=") for word in event.task.command)
            self.folder.journal("started", job, resumed=resumed)
            self._say(job, "resume" if resumed else "start")
            return
        result = self.folder.result(job) if event.code == 0 else None
        facts = {"code": event.code, "seconds": round(event.seconds, 3)}
        if result is not None:
            self.results[job.index] = result
            self._seconds.append(event.seconds)
            self.folder.journal("finished", job, **facts)
            loss = f"val/loss {format_number(result.metrics.get('val/loss'))}"
            self._say(job, "done", loss, format_job_time(event.seconds), self._eta())
        elif self.interrupted:
            self.folder.journal("interrupted", job, **facts)
            self._say(job, "stopped", format_job_time(event.seconds))
        else:
            self.failed[job.index] = describe_exit_code(event.code)
            self.folder.journal("failed", job, **facts)
            self._say(job, "FAILED", describe_exit_code(event.code), format_job_time(event.seconds))
        self.request.work.told(self, job, result)

    def finish(self) -> int:
        """Table and figure of what is finished, then what is not; returns the exit code."""
        if self.results:
            self._table()
        for line in self.request.work.closing(self):
            print(line)
        for index in sorted(self.failed):
            self._show_failure(self.jobs[index])
        again = f"aptlab train -m {shlex.join(self.request.command)}"
        if self.interrupted:
            print(f"interrupted: {len(self.results)} of {self.total} jobs are finished; continue with: {again}")
            return 128 + int(self._interrupts.signal or 0)
        if self.failed:
            print(f"{len(self.failed)} of {self.total} jobs failed; run them again with: {again}")
            return 1
        print(
            f"finished {len(self.results)} jobs in {format_job_time(time.monotonic() - self._begun)}: "
            f"{shorten_path(self.folder.path)}"
        )
        return 0

    def _table(self) -> None:
        from aptlab.report.request import CompareRequest, report_comparison

        jobs = (str(self.folder.path / "jobs"),)
        try:
            for line in report_comparison(CompareRequest(jobs, metric=self.request.work.metric), self.folder.path):
                print(line)
        except AptlabError as error:
            print(f"no table: {error}")

    def _show_failure(self, job: SweepJob) -> None:
        log = self.folder.console(job)
        print(f"failed   {job.name}: {self.failed[job.index]}")
        for line in read_log_tail(log):
            print(f"  | {line}")
        print(f"  log {shorten_path(log)}")

    def _say(self, job: SweepJob, what: str, *facts: str) -> None:
        place = f"[{job.index + 1}/{max(self.total, job.index + 1)}]"
        print("  ".join([f"{place} {what:<7} {job.name}", *(fact for fact in facts if fact)]), flush=True)

    def _eta(self) -> str:
        left = self.total - len(self.results) - len(self.failed)
        if left <= 0:
            return ""
        mean = sum(self._seconds) / len(self._seconds)
        return f"ETA {format_job_time(mean * left / min(self.request.launcher.workers, left))}"


def has_checkpoint(folder: Path) -> bool:
    """Whether a run folder holds a checkpoint that is whole."""
    if not any((folder / "checkpoints").glob("*.ckpt")):
        return False
    from aptlab.checkpoint import find_checkpoint

    try:
        find_checkpoint(folder)
    except AptlabError:
        return False
    return True


def describe_exit_code(code: int | None) -> str:
    """An exit code in words."""
    if code == 0:
        return "ended without a result.json"
    if code is not None and code < 0:
        hint = " (out of memory?)" if code == -9 else ""
        return f"killed by signal {-code}{hint}"
    return f"exit code {code}"


def format_job_time(seconds: float) -> str:
    """A time for people.

    >>> [clock(s) for s in (3.21, 75, 3725)]
    ['3.2 s', '1:15', '1:02:05']
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def shorten_path(path: Path) -> str:
    """A path relative to the current folder where that is shorter."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
