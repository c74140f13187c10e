"""What a run over several tasks is asked before it has a folder: replay, and objectives that remember."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aptlab.callbacks.consolidation import Consolidation, check_memory_of_tasks
from aptlab.callbacks.growth import TaskGrowth, check_growth, find_growing
from aptlab.callbacks.replay import ReplayMemory, check_replay
from aptlab.config import Config, build, derives_from
from aptlab.continual import NoReplay, Replay
from aptlab.errors import ConfigError
from aptlab.models import GrowingClassifier
from aptlab.objectives import DyToxLoss
from aptlab.training.required import require_callback

GROWING = f"{GrowingClassifier.__module__}.{GrowingClassifier.__qualname__}"


def check_continual(config: Config, data: Any, task: Any) -> None:
    """Raises ConfigError where replay or objective do not fit the data or the machine, or no callback follows them."""
    rule: Replay = build(config.resolved()["replay"], "replay")
    try:
        check_replay(rule, data, task)
    except ConfigError as error:
        raise ConfigError(f"replay: {error}") from error
    check_memory_of_tasks(task, data)
    check_growth(task, data)
    check_network_choice(config, task)
    if (net := find_growing(task)) is not None:
        check_divergence(net, task.objective)
        require_callback(config, TaskGrowth, "growth", "the network grows with its tasks", "task=classification")
    elif isinstance(task.objective, DyToxLoss):
        raise ConfigError(
            f"objective: DyToxLoss reads which classes are known, and {type(task.net).__name__} does not say it; "
            "use task=dytox, or another objective"
        )
    if not isinstance(rule, NoReplay):
        require_callback(config, ReplayMemory, "replay", "samples are to be kept", "replay=none")
    if task.objective.remembers != "nothing":
        require_callback(config, Consolidation, "consolidation", "the objective remembers tasks", "another objective")


def check_divergence(net: GrowingClassifier, objective: Any) -> None:
    """ConfigError where the loss of a divergence head is weighed, and the network has none."""
    weighed = isinstance(objective, DyToxLoss) and objective.divergence
    tasks = len(net.sizes)
    if weighed and tasks > 1 and not any(net.list_divergence(task) for task in range(tasks)):
        raise ConfigError(
            f"objective.divergence={objective.divergence:g} weighs a divergence head, and {type(net).__name__} has "
            "none; set objective.divergence=0"
        )


def check_network_choice(config: Config, task: Any) -> None:
    """ConfigError where the group model names a network that grows, and the task trains another one."""
    node: Mapping[str, Any] = config.resolved().get("model") or {}
    chosen = str(node.get("_target_", ""))
    if derives_from(chosen, GROWING) and type(task.net).__name__ != chosen.rpartition(".")[2]:
        raise ConfigError(
            f"model={config.choices.get('model')} is chosen, and the task trains {type(task.net).__name__}; add "
            "task=dytox, which trains what model= says"
        )
