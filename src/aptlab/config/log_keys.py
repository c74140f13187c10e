"""Whole keys in what a component logs: `set newlines=unix` becomes `set source.newlines=unix`, as in its errors.

A component knows no keys of the configuration. Where its line says what to set, it is logged with the component that
speaks: `log.warning("set newlines=unix …", extra={"component": source})`.
"""

from __future__ import annotations

import logging

from aptlab.config.node_path import find_node_path, read_parameters


class CompleteKeys(logging.Filter):
    """Lets every record through, with whole keys where the component that was built from a configuration says them.

    A line without a component, or of one that was built by hand, stays as it is.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        component = vars(record).get("component")
        node = None if component is None else find_node_path(component)
        if node is not None:
            record.msg = node.complete_ways_out(record.getMessage(), read_parameters(type(component)))
            record.args = None
        return True


def complete_logged_keys() -> None:
    """Make the filter part of aptlab's log."""
    logging.getLogger("aptlab").addFilter(CompleteKeys())
