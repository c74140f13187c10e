"""Old weights in a new model: what fits is kept, positions may change their kind."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from torch import Tensor

from aptlab.config import build
from aptlab.errors import CheckpointError
from aptlab.models.positions_convert import ADDED, compute_position_mean, strip_positions
from aptlab.restore.load import keep_fitting_weights
from aptlab.tasks import LanguageTask, Task

log = logging.getLogger("aptlab")
NET = "net."
POSITIONS = (f"{NET}rotaries.", f"{NET}biases.", f"{NET}{ADDED}")  # what position methods learn themselves


def adapt_weights(task: Task, saved: dict[str, Any]) -> dict[str, Tensor]:
    """A checkpoint's weights for a model that may know positions in another way.

    What a position method has learned stays only with that method; another one begins anew. The mean of positions that
    are no longer added to the embedding is folded into it (see `to_rope`).
    """
    state, current = saved["state_dict"], task.state_dict()
    if isinstance(task, LanguageTask) and task.net.embed_positions is None and has_added_positions(saved):
        state = fold_added_positions(state, saved, tied=task.net.tied)
        log.warning("the positions added to the embedding are gone, their mean is folded in; fine-tune before judging")
    return keep_fitting_weights(state, current, POSITIONS)


def has_added_positions(saved: dict[str, Any]) -> bool:
    """Whether the old model added positions to its token embedding."""
    target = str((read_embed_config(saved) or {}).get("_target_", ""))
    return bool(target) and not target.endswith("NoEmbed")


def read_embed_config(saved: dict[str, Any]) -> dict[str, Any] | None:
    """The configuration of what the old model added to its token embedding."""
    return (saved.get("aptlab") or {}).get("config", {}).get("embed")


def fold_added_positions(state: dict[str, Tensor], saved: dict[str, Any], *, tied: bool) -> dict[str, Tensor]:
    """The state without added positions, their mean over the trained context in the embedding."""
    config = saved["aptlab"]["config"]
    places = build(read_embed_config(saved), "embed")(dim=config["size"]["dim"])
    prefix = f"{NET}{ADDED}"
    table = {name.removeprefix(prefix): x for name, x in state.items() if name.startswith(prefix)}
    places.load_state_dict(table)
    weights = {name.removeprefix(NET): x for name, x in state.items() if name.startswith(NET)}
    rest = {name: x for name, x in state.items() if not name.startswith(NET)}
    mean_C = compute_position_mean(places, int(config["context"]))
    return rest | {f"{NET}{name}": x for name, x in strip_positions(weights, mean_C, tied=tied).items()}


def load_weights(task: Task, state: dict[str, Any], path: Path) -> None:
    """Put the weights of a checkpoint into the task; CheckpointError names those that do not fit."""
    current = task.state_dict()
    wrong = [
        f"{name} {tuple(state[name].shape)} -> {tuple(current[name].shape)}"
        for name in current
        if differs_in_shape(name, current, state)
    ]
    if wrong or set(state) ^ set(current):
        names = wrong or sorted(set(state) ^ set(current))
        raise CheckpointError(
            f"the weights of {path} do not fit this model: {', '.join(names[:4])}{' …' if len(names) > 4 else ''}; "
            "keep size, vocabulary and layers as they were trained"
        )
    task.load_state_dict(state)


def differs_in_shape(name: str, current: dict[str, Any], state: dict[str, Any]) -> bool:
    return name in state and current[name].shape != state[name].shape
