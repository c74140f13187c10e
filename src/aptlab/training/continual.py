"""What a run over several tasks is asked before it has a folder: replay, and objectives that remember."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aptlab.callbacks.consolidation import Consolidation, check_memory_of_tasks
from aptlab.callbacks.replay import ReplayMemory, check_replay
from aptlab.config import Config, build
from aptlab.continual import NoReplay, Replay
from aptlab.errors import ConfigError


def check_continual(config: Config, data: Any, task: Any) -> None:
    """Raises ConfigError where replay or objective do not fit the data or the machine, or no callback follows them."""
    rule: Replay = build(config.resolved()["replay"], "replay")
    try:
        check_replay(rule, data, task)
    except ConfigError as error:
        raise ConfigError(f"replay: {error}") from error
    check_memory_of_tasks(task, data)
    if not isinstance(rule, NoReplay):
        require_callback(config, ReplayMemory, "replay", "samples are to be kept", "replay=none")
    if task.objective.remembers != "nothing":
        require_callback(config, Consolidation, "consolidation", "the objective remembers tasks", "another objective")


def require_callback(config: Config, kind: type, name: str, why: str, instead: str) -> None:
    """ConfigError where no callback of a kind is there to do what is asked for."""
    target = f"{kind.__module__}.{kind.__qualname__}"
    nodes: Mapping[str, Any] = config.resolved().get("callbacks") or {}
    if not any(isinstance(node, Mapping) and node.get("_target_") == target for node in nodes.values()):
        raise ConfigError(
            f"{why}, and no callback does it; use callbacks=default, add {name} to the list of callbacks, or say "
            f"{instead}"
        )
