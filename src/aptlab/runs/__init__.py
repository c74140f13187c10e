"""Run folders: making, writing, locking and finding them. No torch. A file is loaded when it is first asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aptlab.lazy import load_on_demand

if TYPE_CHECKING:
    from aptlab.runs.environment import collect_environment
    from aptlab.runs.find import Run, find_runs
    from aptlab.runs.folder import RunFolder
    from aptlab.runs.lock import FolderLock
    from aptlab.runs.log import RunLog, quiet_lightning
    from aptlab.runs.result import Result
    from aptlab.runs.table import MetricsTable

__all__ = [
    "FolderLock",
    "MetricsTable",
    "Result",
    "Run",
    "RunFolder",
    "RunLog",
    "collect_environment",
    "find_runs",
    "quiet_lightning",
]

_HOMES = {
    "FolderLock": "lock",
    "MetricsTable": "table",
    "Result": "result",
    "Run": "find",
    "RunFolder": "folder",
    "RunLog": "log",
    "collect_environment": "environment",
    "find_runs": "find",
    "quiet_lightning": "log",
}
__getattr__ = load_on_demand(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
