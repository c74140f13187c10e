"""Callbacks that another choice needs, looked for in a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aptlab.config import Config
from aptlab.errors import ConfigError


def require_callback(config: Config, kind: type, name: str, why: str, instead: str) -> None:
    """ConfigError where no callback of a kind is there to do what is asked for."""
    target = f"{kind.__module__}.{kind.__qualname__}"
    nodes: Mapping[str, Any] = config.resolved().get("callbacks") or {}
    if not any(isinstance(node, Mapping) and node.get("_target_") == target for node in nodes.values()):
        raise ConfigError(
            f"{why}, and no callback does it; use callbacks=default, add {name} to the list of callbacks, or say "
            f"{instead}"
        )
