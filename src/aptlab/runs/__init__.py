"""Run folders: making, writing, locking and finding them. No torch."""

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
