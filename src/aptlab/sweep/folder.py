"""The folder of a sweep: which jobs it has, what happened to them, and whose turn it is to write there."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aptlab.errors import AptlabError
from aptlab.redact import redact_overrides
from aptlab.runs import FolderLock, Result
from aptlab.runs.atomic import read_yaml, write_yaml
from aptlab.runs.files import open_file, require_inner_folder
from aptlab.runs.folder import make_folder
from aptlab.runs.journal import NAME, Journal
from aptlab.sweep.job import SweepJob


class SweepFolder:
    """outputs/<job>/sweeps/<name>, locked while it is open."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: list[dict[str, Any]] = []
        self._lock: FolderLock | None = None
        self._journal: Journal | None = None

    @classmethod
    def open(cls, root: Path, name: str, *, kind: str = "grid", fresh: bool = False) -> SweepFolder:
        """The latest folder of this name, or a new one with a number behind the name if `fresh` is true.

        Raises AptlabError if another sweep works there, or it cannot be made or read.
        """
        folder = cls((_next if fresh else _latest)(root, name).absolute())
        make_folder(require_inner_folder(folder.path / "jobs"), way_out="choose another paths.root or sweep.name")
        try:
            folder._lock = FolderLock.take(folder.path)
        except AptlabError as error:
            raise AptlabError(_busy(folder.path, str(error))) from None
        folder.stop.unlink(missing_ok=True)
        folder.known = folder._read_jobs(kind)
        return folder

    def close(self) -> None:
        """Take the stop file away and give the folder free."""
        self.stop.unlink(missing_ok=True)
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    @property
    def stop(self) -> Path:
        """While this file exists, jobs end themselves."""
        return self.path / ".stop"

    def run_dir(self, job: SweepJob) -> Path:
        """The run folder of a job: the one it had before, or one named for what differs."""
        for record in self.known:
            if record["index"] == job.index:
                return self.path / "jobs" / record["folder"]
        return self.path / "jobs" / job.folder

    def console(self, job: SweepJob) -> Path:
        """Everything that the job printed, over all attempts."""
        return self.run_dir(job) / "console.txt"

    @property
    def numbers(self) -> dict[str, int]:
        """Job key -> number of the jobs that have been in this folder."""
        return {record["key"]: record["index"] for record in self.known}

    def write(self, jobs: Sequence[SweepJob], **about: Any) -> None:
        """Write sweep.yaml: `about`, then every job, old and new; secrets in overrides are hidden."""
        records = {record["index"]: record for record in self.known}
        for job in jobs:
            records.setdefault(
                job.index,
                {
                    "index": job.index,
                    "key": job.key,
                    "name": ",".join(redact_overrides(job.varied)) or "job",
                    "folder": job.folder,
                    "overrides": redact_overrides(job.overrides),
                },
            )
        self.known = [records[index] for index in sorted(records)]
        write_yaml(self.path / "sweep.yaml", {"name": self.path.name, **about, "jobs": self.known})

    def journal(self, event: str, job: SweepJob | None = None, **facts: Any) -> None:
        """Append one event to journal.jsonl, on disk before this returns."""
        record = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event}
        if job is not None:
            record |= {"job": job.index, "folder": self.run_dir(job).name}
        self._events().append({**record, **facts})

    def last_events(self) -> dict[int, str]:
        """The last event of every job in the journal; damaged lines are left out with a warning."""
        records = self._events().records
        return {record["job"]: record["event"] for record in records if "job" in record and "event" in record}

    def _events(self) -> Journal:
        """The journal, opened when it is first needed: a folder that is only read gets none."""
        if self._journal is None:
            # An older version wrote behind a torn line, and one line less is no reason to repeat a sweep.
            self._journal = Journal(self.path / NAME, afresh="use another sweep.name", lenient=True)
        return self._journal

    def result(self, job: SweepJob) -> Result | None:
        """The job's result, or None if it is not finished or its result.json is damaged.

        Raises AptlabError if the folder holds the result of other overrides: somebody else wrote there.
        """
        folder = self.run_dir(job)
        try:
            result = Result.read(folder)
        except AptlabError:
            return None
        expected = set(redact_overrides(o for o in job.overrides if not starts_run(o)))
        if result.overrides and not expected <= set(result.overrides):
            missing = ", ".join(sorted(expected - set(result.overrides)))
            raise AptlabError(f"{folder} holds the result of another job (without {missing}); move it away")
        return result

    def busy(self, job: SweepJob) -> bool:
        """Whether a process of an earlier sweep that was killed still writes to the job's folder."""
        folder = self.run_dir(job)
        try:
            if folder.is_dir():
                FolderLock.take(folder).release()
        except AptlabError:
            return True
        return False

    def _read_jobs(self, kind: str) -> list[dict[str, Any]]:
        path = self.path / "sweep.yaml"
        if not path.exists():
            return []
        try:
            page = read_yaml(path)
            jobs = [{**job, "index": int(job["index"]), "key": str(job["key"])} for job in page["jobs"]]
            before = page["kind"]
            for job in jobs:
                require_plain_name(job["folder"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            self.close()
            raise AptlabError(f"{path} cannot be read ({error}); use sweep.fresh=true or another sweep.name") from error
        if before != kind:
            self.close()
            raise AptlabError(f"{self.path} is a sweep of kind {before}, not {kind}; use another sweep.name")
        return jobs


def require_plain_name(name: Any) -> None:
    """ValueError for the folder of a job that is not the name of one, as `..` and a path are not."""
    if not isinstance(name, str) or name in ("", ".", "..") or Path(name).name != name:
        raise ValueError(f"folder: {name!r} is no name of a folder beside the others")


def starts_run(override: str) -> bool:
    """Whether an override says how a run begins or where it writes, and so may change when it is continued."""
    return override.partition("=")[0] in ("ckpt", "load", "run_dir")


def read_log_tail(path: Path, lines: int = 8) -> list[str]:
    """The last lines of a log that are not empty; carriage returns of progress bars count as ends of lines."""
    try:
        with open_file(path, "rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 16_384))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    return [line.rstrip() for line in re.split(r"[\r\n]+", text) if line.strip()][-lines:]


def _folders(root: Path, name: str) -> dict[int, Path]:
    """Number -> folder of this name: `name` is 1, `name-2` is 2, …"""
    found = {1: root / name} if (root / name).is_dir() else {}
    for path in root.glob("*") if root.is_dir() else ():
        number = path.name.removeprefix(f"{name}-")
        if path.name.startswith(f"{name}-") and number.isdigit() and path.is_dir():
            found[int(number)] = path
    return found


def _latest(root: Path, name: str) -> Path:
    found = _folders(root, name)
    return found[max(found)] if found else root / name


def _next(root: Path, name: str) -> Path:
    found = _folders(root, name)
    return root / f"{name}-{max(found) + 1}" if found else root / name


def _busy(folder: Path, message: str) -> str:
    owner = re.search(r"process (\w+)", message)
    if owner is None:
        return message
    return (
        f"{folder}: process {owner[1]} is working on this sweep; wait for it, stop it (kill {owner[1]}), "
        "or add sweep.fresh=true"
    )
