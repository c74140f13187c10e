"""What a run expects of each of its loggers, beyond Lightning's numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only


class RunLogger(Logger):
    """Abstract logger of a run: numbers as Lightning sends them, then a result and a figure, then the end.

    A logger overrides what it has a place for; everything else passes it without a trace. No method raises.
    """

    @property
    def run_id(self) -> str | None:
        """Identity under which a server knows the run, for its checkpoints; None without a server."""
        return None

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: config.yaml has them, and what goes to a server goes there redacted when the run begins."""

    @rank_zero_only
    def resume(self, step: int) -> None:
        """Forget the numbers after `step`, before training goes on from there."""

    @rank_zero_only
    def log_figure(self, path: str | Path, name: str = "figure") -> None:
        """Take a picture file."""

    @rank_zero_only
    def log_result(self, result: Mapping[str, Any]) -> None:
        """Take the final numbers."""

    @rank_zero_only
    def mark_preempting(self) -> None:
        """Note that the run is stopped from outside and will be continued."""

    @rank_zero_only
    def close(self, exit_code: int = 0) -> None:
        """End the run; `exit_code` is the one of the process."""
