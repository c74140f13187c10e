"""Whether a memory gets rows that it can remember."""

from __future__ import annotations

import logging
from typing import Any

from aptlab.config import Config
from aptlab.training.protocols import SegmentedData

log = logging.getLogger("aptlab")


def advise_ordered_rows(config: Config, data: Any) -> None:
    """A warning where the configuration has a memory, and no row goes on where another one stopped."""
    memory = config.choices.get("memory")
    if memory in (None, "none") or (isinstance(data, SegmentedData) and data.segment_plan is not None):
        return
    log.warning(
        "memory=%s keeps what it has read for the rows that follow, and rows of %s are in no order: each begins with "
        "nothing; read documents in order, as with data.segments=8",
        *(memory, f"data={config.choices.get('data') or type(data).__name__}"),
    )
