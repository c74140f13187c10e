"""Whole keys in what a component logs: `set newlines=unix` becomes `set source.newlines=unix`, as in its errors."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

from aptlab.config.node_path import WAY_OUT, NodePath, find_node_path, read_parameters


class CompleteKeys(logging.Filter):
    """Lets every record through, with whole keys where it says what to type.

    The component that speaks is the innermost one on the stack that has the parameter and was built from a
    configuration; a line of any other code stays as it is.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if WAY_OUT.search(text) is None:
            return True
        for component, node in find_speaking_components(sys._getframe()):
            completed = node.complete_ways_out(text, read_parameters(type(component)))
            if completed != text:
                record.msg, record.args = completed, None
                break
        return True


def find_speaking_components(frame: FrameType | None) -> Iterator[tuple[Any, NodePath]]:
    """Built components whose methods are running, the innermost first."""
    while frame is not None:
        component = frame.f_locals.get("self")
        if (node := find_node_path(component)) is not None:
            yield component, node
        frame = frame.f_back


def complete_logged_keys() -> None:
    """Make the filter part of aptlab's log."""
    logging.getLogger("aptlab").addFilter(CompleteKeys())
