"""Run folders: making, writing, locking and finding them. No torch."""

from aptlab.runs.environment import environment
from aptlab.runs.find import Run, find_runs
from aptlab.runs.folder import RunFolder
from aptlab.runs.lock import FolderLock
from aptlab.runs.log import RunLog, quiet_lightning
from aptlab.runs.result import Result
from aptlab.runs.table import Table

__all__ = [
    "FolderLock",
    "Result",
    "Run",
    "RunFolder",
    "RunLog",
    "Table",
    "environment",
    "find_runs",
    "quiet_lightning",
]
