"""Where the jobs of a sweep run: here, in joblib's workers, on a SLURM cluster. One contract: `run(tasks, on_event)`.

`tasks` is asked for the next one only when there is room for it, so that a search knows what came before.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from aptlab.errors import ConfigError
from aptlab.limits import NonNegative, NonNegativeInt, PositiveInt, validate_limits
from aptlab.runs.environment import describe_machine
from aptlab.runs.files import open_file
from aptlab.sweep.child import POLL, ChildProcess, read_stop_signal, run_job_command
from aptlab.sweep.job import JobCommand, JobEvent

OnEvent = Callable[[JobEvent], None]


class Launcher(Protocol):
    """What a sweep needs to know about a launcher.

    workers  jobs at a time
    grace    seconds that a job may take to save its state
    """

    workers: int
    grace: float

    def run(self, tasks: Iterator[JobCommand], on_event: OnEvent) -> None:
        """Run every task, tell when each starts and ends; returns when all have ended."""
        ...


class JobHandle(Protocol):
    """A job under way."""

    def poll(self) -> int | None:
        """Its exit code, or None while it runs."""
        ...

    @property
    def seconds(self) -> float:
        """Wall time since it began."""
        ...


@dataclass(frozen=True)
class ProcessLauncher(Launcher):
    """Jobs as child processes, `workers` at a time; with `gpus`, each job sees that many GPUs of its own."""

    workers: PositiveInt = 1
    gpus: PositiveInt | None = None
    grace: NonNegative = 60.0

    def __post_init__(self) -> None:
        validate_limits(self)
        share_gpus(self.workers - 1, self.gpus)

    def run(self, tasks: Iterator[JobCommand], on_event: OnEvent) -> None:
        """See Launcher."""

        def start(task: JobCommand, slot: int) -> JobHandle:
            env = {**share_threads(self.workers), **share_gpus(slot, self.gpus), **task.env}
            return ChildProcess(replace(task, env=env), grace=self.grace)

        drive_jobs(tasks, on_event, workers=self.workers, start=start, pause=POLL)


@dataclass(frozen=True)
class JoblibLauncher(Launcher):
    """Jobs in the worker processes of joblib, which outlive single jobs."""

    workers: PositiveInt = 2
    grace: NonNegative = 60.0

    def __post_init__(self) -> None:
        validate_limits(self)
        _needs("joblib")

    def run(self, tasks: Iterator[JobCommand], on_event: OnEvent) -> None:
        """See Launcher."""
        from joblib.externals.loky import ProcessPoolExecutor

        pool = ProcessPoolExecutor(max_workers=self.workers, timeout=60)  # idle workers of a killed sweep end

        def start(task: JobCommand, slot: int) -> JobHandle:
            env = {**share_threads(self.workers), **task.env}
            return PooledJob(pool.submit(run_job_command, replace(task, env=env), self.grace))

        try:
            drive_jobs(tasks, on_event, workers=self.workers, start=start, pause=POLL)
        finally:
            pool.shutdown(wait=True)


@dataclass(frozen=True)
class SubmititLauncher(Launcher):
    """Jobs of a cluster, one node each. `cluster=local` runs them here, to try a sweep out before it queues."""

    cluster: str = "slurm"
    partition: str | None = None
    timeout_min: PositiveInt = 240
    gpus: NonNegativeInt = 0
    cpus: PositiveInt = 4
    memory_gb: NonNegative | None = None
    workers: PositiveInt = 8
    grace: NonNegative = 60.0

    def __post_init__(self) -> None:
        validate_limits(self)
        if self.cluster not in ("slurm", "local"):
            raise ConfigError(f"cluster={self.cluster}: must be slurm or local")
        _needs("submitit")

    def run(self, tasks: Iterator[JobCommand], on_event: OnEvent) -> None:
        """See Launcher."""
        executors: dict[Path, Any] = {}

        def start(task: JobCommand, slot: int) -> JobHandle:
            folder = Path(task.stop).parent / "submitit"
            if folder not in executors:
                executors[folder] = self.executor(folder)
            # With one task per node Lightning would take SLURM's word for the number of ranks; this name makes it
            # start its ranks by itself, as it does on any other machine.
            env = {"SLURM_JOB_NAME": "interactive", **task.env}
            return ClusterJob(executors[folder].submit(run_job_command, replace(task, env=env), self.grace), task)

        drive_jobs(
            tasks, on_event, workers=self.workers, start=start, pause=0.5 if self.cluster == "slurm" else 4 * POLL
        )

    def executor(self, folder: Path) -> Any:
        """The submitit executor that writes its own files into `folder`."""
        import submitit

        executor = submitit.AutoExecutor(folder=folder, cluster=self.cluster)
        parameters: dict[str, Any] = {
            "name": "aptlab",
            "timeout_min": self.timeout_min,
            "nodes": 1,
            "tasks_per_node": 1,
            "cpus_per_task": self.cpus,
            "gpus_per_node": self.gpus,
            "mem_gb": self.memory_gb,
        }
        if self.cluster == "slurm":
            parameters["slurm_partition"] = self.partition
        executor.update_parameters(**{name: value for name, value in parameters.items() if value is not None})
        return executor


class PooledJob:
    """A call under way in a pool of processes."""

    def __init__(self, future: Any) -> None:
        self._future = future
        self._begun = time.monotonic()

    def poll(self) -> int | None:
        """See Handle; a worker that died counts as exit code 1."""
        if not self._future.done():
            return None
        return 1 if self._future.exception() else int(self._future.result()[0])

    @property
    def seconds(self) -> float:
        """Seconds of the job itself once it has ended, not of its wait for a worker."""
        if self._future.done() and not self._future.exception():
            return float(self._future.result()[1])
        return time.monotonic() - self._begun


class ClusterJob:
    """A job of a cluster; cancelled in the queue when the sweep is interrupted."""

    def __init__(self, job: Any, task: JobCommand) -> None:
        self._job, self._task = job, task
        self._begun = time.monotonic()
        self._cancelled = False

    def poll(self) -> int | None:
        """See Handle; a job that the cluster lost or timed out counts as exit code 1."""
        if not self._cancelled and read_stop_signal(self._task.stop) and self._job.state in ("PENDING", "UNKNOWN"):
            self._job.cancel(check=False)
            self._cancelled = True
        if self._cancelled or not self._job.done():
            return 1 if self._cancelled else None
        failure = self._job.exception()
        if failure is not None:
            with open_file(self._task.log, "a", encoding="utf-8") as log:
                log.write(f"{failure}\n")
            return 1
        return int(self._job.result()[0])

    @property
    def seconds(self) -> float:
        """Seconds of the job itself once it has ended, not of its wait in the queue."""
        if not self._cancelled and self._job.done() and self._job.exception() is None:
            return float(self._job.result()[1])
        return time.monotonic() - self._begun


def drive_jobs(
    tasks: Iterator[JobCommand],
    on_event: OnEvent,
    *,
    workers: int,
    start: Callable[[JobCommand, int], JobHandle],
    pause: float,
) -> None:
    """Keep `workers` jobs under way, in this thread, until there are no more."""
    running: dict[int, tuple[JobCommand, JobHandle]] = {}
    more = True
    while more or running:
        while more and len(running) < workers:
            task = next(tasks, None)
            if task is None:
                more = False
                break
            slot = min(set(range(workers)) - set(running))
            on_event(JobEvent("started", task))
            running[slot] = (task, start(task, slot))
        for slot, (task, handle) in list(running.items()):
            code = handle.poll()
            if code is not None:
                del running[slot]
                on_event(JobEvent("ended", task, code, handle.seconds))
                more = True  # a search may know a next trial only now
        if running:
            time.sleep(pause)


def share_threads(workers: int) -> dict[str, str]:
    """OMP_NUM_THREADS for jobs that run side by side, unless the user set it."""
    if workers == 1 or "OMP_NUM_THREADS" in os.environ:
        return {}
    return {"OMP_NUM_THREADS": str(max(1, (describe_machine()["cores"] or 1) // workers))}


def share_gpus(slot: int, gpus: int | None) -> dict[str, str]:
    """CUDA_VISIBLE_DEVICES of one worker; raises ConfigError if this machine is known to have too few GPUs."""
    if gpus is None:
        return {}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else [str(i) for i in range(len(describe_machine()["gpus"]))]
    if len(names) < (slot + 1) * gpus:
        raise ConfigError(
            f"workers={slot + 1} with gpus={gpus} needs {(slot + 1) * gpus} GPUs, "
            f"this machine has {len(names)}; use fewer workers, or gpus=null"
        )
    return {"CUDA_VISIBLE_DEVICES": ",".join(names[slot * gpus : (slot + 1) * gpus])}


def _needs(package: str) -> None:
    import importlib.util

    if importlib.util.find_spec(package) is None:
        raise ConfigError(f"launcher={package} needs {package}; pip install 'aptlab[launchers]'")
