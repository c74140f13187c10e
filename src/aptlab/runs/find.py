"""Runs on disk, found again: finished and unfinished ones."""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aptlab.errors import AptlabError, suggest_option
from aptlab.runs.files import require_inner_folder
from aptlab.runs.record import read_record
from aptlab.runs.result import EARLIER, Result, read_sealed_result
from aptlab.runs.table import MetricsTable

log = logging.getLogger("aptlab.runs")

ENVIRONMENT = "environment.json"
RECORDS = {"config.yaml": dict, "overrides.yaml": list, "choices.yaml": dict, ENVIRONMENT: dict}
_NOT_RUNS = {"wandb", "checkpoints", "__pycache__", ".git"}


@dataclass(frozen=True)
class Run:
    """One run folder read back; `result` is None while the run is not finished.

    unsealed  names of the records without a checksum, as an earlier version wrote them
    """

    path: Path
    result: Result | None
    config: dict[str, Any]
    overrides: list[str]
    choices: dict[str, Any]
    environment: dict[str, Any]
    unsealed: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: str | Path) -> Run:
        """Read a run folder; raises AptlabError naming the file that is damaged."""
        path = Path(path)
        records = {name: _read_plain(path / name, kind) for name, kind in RECORDS.items()}
        config, overrides, choices, environment = (value for value, _ in records.values())
        result, unsealed = None, [name for name, (_, sealed) in records.items() if not sealed]
        if os.path.lexists(path / "result.json"):
            result, sealed = read_sealed_result(path)
            unsealed += [] if sealed else ["result.json"]
        return cls(path, result, config, overrides, choices, environment, tuple(unsealed))

    @property
    def finished(self) -> bool:
        """Whether the run reached its end and wrote result.json."""
        return self.result is not None

    def list_earlier_results(self) -> list[Result]:
        """The results of the ends that the run had before it was trained further, in order of their steps."""
        return sorted(
            map(Result.read, require_inner_folder(self.path / EARLIER).glob("*.json")), key=lambda result: result.steps
        )

    @property
    def name(self) -> str:
        """The folder's last part."""
        return self.path.name

    def metrics(self) -> dict[str, list[float | None]]:
        """metrics.csv as columns (None: not measured at that step); empty if there is no file.

        Damaged rows are left out with one warning that names the file.
        """
        path = self.path / "metrics.csv"
        try:
            table = MetricsTable.read(path)
        except FileNotFoundError:
            return {}
        except OSError as error:
            log.warning("%s cannot be read: %s", path, error.strerror or error)
            return {}
        if table.problems:
            log.warning("%s: %s", path, "; ".join(table.problems[:3]))
        return table.numbers()

    def series(self, name: str) -> tuple[list[int], list[float]]:
        """The steps at which a quantity was measured, and its values there; AptlabError where there is no such one."""
        columns = self.metrics()
        if name not in columns:
            if not columns:
                raise AptlabError(f"{name}: {self.path} has no metrics.csv to read it from")
            raise AptlabError(f"{name}: {self.path / 'metrics.csv'} has no such column{suggest_option(name, columns)}")
        pairs = [
            (step, value)
            for step, value in zip(columns.get("step", []), columns.get(name, []))
            if step is not None and value is not None
        ]
        return [int(step) for step, _ in pairs], [value for _, value in pairs]


def find_runs(paths: Iterable[str | Path]) -> list[Run]:
    """All runs in or under the given folders or patterns, each once, in order of start, then path.

    A folder with a damaged file is skipped with a warning that names the file; how many runs of earlier versions have
    no checksums is said in one line. Raises AptlabError for a path that is not there at all.
    """
    runs: dict[Path, Run] = {}
    for path in paths:
        for folder in _folders(path):
            key = folder.resolve()
            if key in runs:
                continue
            try:
                runs[key] = Run.read(folder)
            except AptlabError as error:
                log.warning("skipped %s: %s", folder, error)
    unsealed = [run for run in runs.values() if run.unsealed]
    if unsealed:
        count = f"{len(unsealed)} of {len(runs)} runs have" if len(runs) > 1 else f"{unsealed[0].path} has"
        log.info("%s records of an earlier version, without checksums: taken as they are", count)
    return sorted(runs.values(), key=lambda run: (str(run.environment.get("started") or ""), str(run.path)))


def _folders(path: str | Path) -> Iterator[Path]:
    """Run folders at, or anywhere under, a path or pattern."""
    text = os.path.expanduser(str(path))
    matches = [text] if os.path.exists(text) else sorted(glob.glob(text, recursive=True))
    if not matches:
        raise AptlabError(f"{path}: no such folder; give a run folder, or one that holds run folders")
    for match in map(Path, matches):
        start = match.parent if match.is_file() else match
        for place, inner, files in os.walk(start):
            inner[:] = sorted(name for name in inner if name not in _NOT_RUNS)
            if "config.yaml" in files or "result.json" in files:
                yield Path(place)


def _read_plain(path: Path, kind: type) -> tuple[Any, bool]:
    """A YAML or JSON record of the wanted kind, and whether it has a checksum; an empty one if the file is missing."""
    try:
        value, sealed = read_record(path, kind, way_out="leave the run out")
    except FileNotFoundError:
        return kind(), True
    if kind is list and not all(isinstance(item, str) for item in value):
        raise AptlabError(f"{path} should hold a list of texts")
    if path.name == ENVIRONMENT and not isinstance(value.get("command") or [], list):
        raise AptlabError(f"{path}: command should be list, it is {type(value['command']).__name__}")
    return value, sealed
