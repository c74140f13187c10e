"""One invocation of a sweep: run what is left of it, write the journal, say what happened."""

from __future__ import annotations

import shlex
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from aptlab.checkpoint import find_checkpoint
from aptlab.config.sweeps import format_override
from aptlab.errors import AptlabError
from aptlab.report.table import format_number
from aptlab.report.write import report_comparison
from aptlab.runs.progress import format_duration
from aptlab.shown import count_nouns, print_drawn, print_shown
from aptlab.sweep.child import write_stop_signal
from aptlab.sweep.folder import SweepFolder, read_log_tail, starts_run
from aptlab.sweep.interrupts import Interrupts
from aptlab.sweep.job import JobCommand, JobEvent, SweepJob
from aptlab.sweep.launchers import Launcher
from aptlab.sweep.plan import SweepPlan, SweepState

COMMAND = (sys.executable, "-m", "aptlab", "train")


def run_sweep(
    plan: SweepPlan, *, launcher: Launcher, root: Path, arguments: Sequence[str], command: Sequence[str] = COMMAND
) -> int:
    """Run a checked sweep in a folder below `root`; returns its exit code.

    arguments  of the sweep's own command line, for the line that says how to continue; without secrets
    command    what trains one job, before its overrides
    """
    folder = SweepFolder.open(root, plan.name, kind=plan.kind, fresh=plan.fresh, earlier=plan.find_earlier_name)
    folder.rename_keys(plan.list_jobs())
    try:
        with Interrupts(folder.stop) as interrupts:
            run = SweepRunner(plan, launcher, folder, interrupts, arguments=arguments, command=command)
            run.run_jobs()
            return run.finish_sweep()
    finally:
        folder.close()


class SweepRunner:
    """Owns the folder, the journal and the state of one invocation; asks the plan for jobs and tells it their ends."""

    def __init__(
        self,
        plan: SweepPlan,
        launcher: Launcher,
        folder: SweepFolder,
        interrupts: Interrupts,
        *,
        arguments: Sequence[str],
        command: Sequence[str],
    ) -> None:
        self.plan, self.launcher, self.folder = plan, launcher, folder
        self.state = SweepState()
        self.total = 0
        self._interrupts, self._arguments, self._command = interrupts, tuple(arguments), tuple(command)
        self._seconds: list[float] = []
        self._begun = time.monotonic()

    @property
    def interrupted(self) -> bool:
        """Whether the user wants the sweep to stop."""
        return self._interrupts.signal is not None

    def run_jobs(self) -> None:
        """Run all that is left."""
        self._sort_jobs(self.plan.open_jobs(self.folder.path, self.folder.numbers))
        self.total = self.plan.count_jobs(self.state)
        before = f", {len(self.state.results)} finished before" if self.state.results else ""
        print_shown(f"sweep    {shorten_path(self.folder.path)}")
        print_shown(f"jobs     {self.total}{before}, {self.launcher.workers} at a time", flush=True)
        self.launcher.run(self._make_commands(), self._on_event)

    def finish_sweep(self) -> int:
        """Table and figure of what is finished, then what is not; returns the exit code."""
        results, failed = self.state.results, self.state.failed
        if results:
            self._report_table()
        for line in self.plan.describe_best():
            print_shown(line)
        for index in sorted(failed):
            self._show_failure(self.state.jobs[index])
        again = f"aptlab train -m {shlex.join(self._arguments)}"
        if self.interrupted:
            jobs = f"{count_nouns(self.total, 'job')} {'is' if self.total == 1 else 'are'} finished"
            print_shown(f"interrupted: {len(results):,} of {jobs}; continue with: {again}")
            return 128 + int(self._interrupts.signal or 0)
        if failed:
            print_shown(f"{len(failed):,} of {count_nouns(self.total, 'job')} failed; run them again with: {again}")
            return 1
        took = format_job_time(time.monotonic() - self._begun)
        print_shown(f"finished {count_nouns(len(results), 'job')} in {took}: {shorten_path(self.folder.path)}")
        return 0

    def _sort_jobs(self, jobs: Sequence[SweepJob]) -> None:
        """Write numbered jobs down and sort them: finished before, failed before and left alone, to do."""
        self._write(jobs)
        state, last = self.state, self.folder.last_events()
        self._end_orphans([job for job in jobs if last.get(job.index) == "started"])
        for job in jobs:
            state.jobs[job.index] = job
            result = self.folder.result(job)
            if result is not None:
                state.results[job.index] = result
                self.plan.record_result(job, result)  # its parent may have died before it could
            elif last.get(job.index) == "failed" and not self.plan.retry_failed:
                state.failed[job.index] = "failed before; sweep.retry_failed=true runs it again"
            else:
                state.pending.append(job)

    def _end_orphans(self, jobs: Sequence[SweepJob]) -> None:
        """Ask jobs that outlived an earlier, killed parent (as those of a cluster do) to save and end, and wait."""
        busy = [job for job in jobs if self.folder.busy(job)]
        if not busy:
            return
        print_shown(f"waiting  for {len(busy)} job(s) of an earlier, killed sweep to save and end", flush=True)
        write_stop_signal(self.folder.stop, str(int(signal.SIGTERM)))
        end = time.monotonic() + self.launcher.grace
        while any(map(self.folder.busy, busy)) and time.monotonic() < end and not self.interrupted:
            time.sleep(0.2)
        if not self.interrupted:
            self.folder.stop.unlink(missing_ok=True)

    def _write(self, jobs: Sequence[SweepJob]) -> None:
        """Bring sweep.yaml up to date."""
        self.folder.write(jobs, kind=self.plan.kind, command=list(self._arguments))

    def _make_commands(self) -> Iterator[JobCommand]:
        """The commands of the plan's jobs, until there are no more or the sweep is interrupted."""
        jobs = self.plan.next_jobs(self.state)
        while not self.interrupted:
            job = next(jobs, None)
            if job is None:
                return
            if job.index not in self.state.jobs:  # it has just been thought of
                self.state.jobs[job.index] = job
                self._write([job])
            yield self._make_command(job)

    def _make_command(self, job: SweepJob) -> JobCommand:
        """The command for a job: the rest of it if it holds a checkpoint, else all of it."""
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

    def _on_event(self, event: JobEvent) -> None:
        """Note and print the start or the end of a job."""
        job = self.state.jobs[event.task.index]
        if event.kind == "started":
            resumed = any(word.startswith("ckpt=") for word in event.task.command)
            self.folder.journal("started", job, resumed=resumed)
            self._say(job, "resume" if resumed else "start")
        else:
            self._record_end(job, event)

    def _record_end(self, job: SweepJob, event: JobEvent) -> None:
        """State, journal, one line, and then the plan; an interrupted job stays open and is continued next time."""
        result = self.folder.result(job) if event.code == 0 else None
        facts = {"code": event.code, "seconds": round(event.seconds, 3)}
        if result is not None:
            self.state.results[job.index] = result
            self._seconds.append(event.seconds)
            self.folder.journal("finished", job, **facts)
            loss = f"val/loss {format_number(result.metrics.get('val/loss'))}"
            self._say(job, "done", loss, format_job_time(event.seconds), self._estimate_rest())
        elif self.interrupted:
            self.folder.journal("interrupted", job, **facts)
            self._say(job, "stopped", format_job_time(event.seconds))
            return
        else:
            self.state.failed[job.index] = describe_exit_code(event.code)
            self.folder.journal("failed", job, **facts)
            self._say(job, "FAILED", describe_exit_code(event.code), format_job_time(event.seconds))
        self.plan.record_result(job, result)

    def _report_table(self) -> None:
        """Table and figure of the finished jobs; where they cannot be made, the reason in one line."""
        try:
            for line in report_comparison([self.folder.path / "jobs"], self.folder.path, metric=self.plan.metric):
                print_drawn(line)
        except AptlabError as error:
            print_shown(f"no table: {error}")

    def _show_failure(self, job: SweepJob) -> None:
        """The reason and the last lines of the log."""
        log = self.folder.console(job)
        print_shown(f"failed   {job.name}: {self.state.failed[job.index]}")
        for line in read_log_tail(log):
            print_shown(f"  | {line}")
        print_shown(f"  log {shorten_path(log)}")

    def _say(self, job: SweepJob, what: str, *facts: str) -> None:
        """One line about a job."""
        place = f"[{job.index + 1}/{max(self.total, job.index + 1)}]"
        print_shown("  ".join([f"{place} {what:<7} {job.name}", *(fact for fact in facts if fact)]), flush=True)

    def _estimate_rest(self) -> str:
        """How long the jobs that are left will take, as those did that finished here."""
        left = self.total - len(self.state.results) - len(self.state.failed)
        if left <= 0:
            return ""
        mean = sum(self._seconds) / len(self._seconds)
        return f"ETA {format_job_time(mean * left / min(self.launcher.workers, left))}"


def has_checkpoint(folder: Path) -> bool:
    """Whether a run folder holds a checkpoint that is whole."""
    if not any((folder / "checkpoints").glob("*.ckpt")):
        return False
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

    >>> [format_job_time(s) for s in (3.21, 75, 3725)]
    ['3.2 s', '1:15', '1:02:05']
    """
    return f"{seconds:.1f} s" if seconds < 60 else format_duration(seconds)


def shorten_path(path: Path) -> str:
    """A path relative to the current folder where that is shorter."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
