"""What a callback may ask of the run it is in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class RunContext:
    """The run as callbacks see it.

    folder       where it writes
    describe     a function that describes the run as plain values, as checkpoints hold it
    data         its data module
    config_hash  16 hex digits of the configuration as composed
    replace_end  to be called once new steps are saved: from then on an earlier end of the run is history
    """

    folder: Path
    describe: Callable[[], dict[str, Any]] = dict
    data: Any = None
    config_hash: str = ""
    replace_end: Callable[[], None] = lambda: None


class RunAware(ABC):
    """A callback that needs its run: `class Mine(RunAware, Callback)`.

    `attach` is called once, after the callbacks are built and before training begins.
    """

    @abstractmethod
    def attach(self, run: RunContext) -> None:
        """Take from the run what is needed later."""
