"""The folder of a sweep: which jobs it has, what happened to them, and whose turn it is to write there."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aptlab.errors import AptlabError
from aptlab.redact import redact_overrides
from aptlab.runs import FolderLock, Result
from aptlab.runs.files import open_file, require_inner_folder
from aptlab.runs.folder import make_folder
from aptlab.runs.journal import NAME, Journal
from aptlab.runs.record import find_shape_problem, read_record, write_yaml_record
from aptlab.runs.result import read_result_if_whole
from aptlab.sweep.job import SweepJob, names_root

EarlierName = Callable[[str], str | None]
JOB = {"index": int, "key": str, "folder": str}
AFRESH = "use another sweep.name"


class SweepFolder:
    """outputs/<job>/sweeps/<name>, locked while it is open."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: list[dict[str, Any]] = []
        self._lock: FolderLock | None = None
        self._journal: Journal | None = None

    @classmethod
    def open(
        cls,
        root: Path,
        name: str,
        *,
        kind: str = "grid",
        fresh: bool = False,
        earlier: EarlierName = lambda root: None,
    ) -> SweepFolder:
        """The latest folder of this name, or a new one with a number behind the name if `fresh` is true.

        `earlier` gives the name that earlier versions would have taken, by the override of `paths.root`.
        Raises AptlabError if another sweep works there, or it cannot be made or read.
        """
        path = _next(root, name) if fresh else _latest(root, name)
        if not fresh and not path.is_dir():
            path = _find_earlier(root, earlier) or path
        folder = cls(path.absolute())
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

    def rename_keys(self, jobs: Sequence[SweepJob]) -> None:
        """Give jobs of an earlier version the keys of today, in which `paths.root` does not count."""
        roots = {root for record in self.known if (root := _read_root(record))}
        names = {job.make_earlier_key(root): job.key for root in roots for job in jobs}
        self.known = [{**record, "key": names.get(record["key"], record["key"])} for record in self.known]

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
        write_yaml_record(self.path / "sweep.yaml", {"name": self.path.name, **about, "jobs": self.known})

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
            self._journal = Journal(self.path / NAME, inspect=_find_event_problem, afresh=AFRESH, lenient=True)
        return self._journal

    def result(self, job: SweepJob) -> Result | None:
        """The job's result, or None if it is not finished, or its result.json is damaged, which the log says.

        Raises AptlabError if the folder holds the result of other overrides: somebody else wrote there.
        """
        folder = self.run_dir(job)
        result = read_result_if_whole(folder)
        if result is None:
            return None
        expected = set(redact_overrides(o for o in job.overrides if not starts_run(o) and not names_root(o)))
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
            page, _ = read_record(path, dict, way_out="use sweep.fresh=true or another sweep.name")
            problem = find_shape_problem(page, {"kind": str, "jobs": list})
            for number, job in enumerate(page["jobs"] if problem is None else ()):
                problem = problem or find_shape_problem(job, JOB, f"jobs[{number}]")
                if problem is None and not _is_plain_name(job["folder"]):
                    problem = f"jobs[{number}].folder is {job['folder']!r:.60}, no name of a folder"
            if problem:
                raise AptlabError(f"{path} cannot be read: {problem}; use sweep.fresh=true or another sweep.name")
            if page["kind"] != kind:
                raise AptlabError(f"{self.path} is a sweep of kind {page['kind']}, not {kind}; use another sweep.name")
        except AptlabError:
            self.close()
            raise
        return page["jobs"]


def _is_plain_name(name: str) -> bool:
    """Whether a text names a folder in its parent and nothing else."""
    return name not in ("", ".", "..") and "/" not in name and "\\" not in name and "\0" not in name


def _find_event_problem(record: Mapping[str, Any]) -> str | None:
    """What is wrong with the shape of an event."""
    return find_shape_problem(record, {"event": str, "job": int}) if "job" in record else None


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


def _find_earlier(root: Path, earlier: EarlierName) -> Path | None:
    """The latest folder of a sweep that an earlier version named, wherever its runs were kept then."""
    found: dict[int, Path] = {}
    for path in root.glob("*/sweep.yaml") if root.is_dir() else ():
        with contextlib.suppress(AptlabError, OSError):
            page, _ = read_record(path, dict)
            jobs = page.get("jobs")
            word = _read_root(jobs[0]) if isinstance(jobs, list) and jobs else None
            name = earlier(word) if word else None
            if name is not None:
                found |= {number: place for number, place in _folders(root, name).items() if place == path.parent}
    return found[max(found)] if found else None


def _read_root(record: Any) -> str | None:
    """The override of `paths.root` that a job had."""
    words = record.get("overrides") if isinstance(record, Mapping) else None
    named = [word for word in words if isinstance(word, str) and names_root(word)] if isinstance(words, list) else []
    return named[0] if named else None


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
