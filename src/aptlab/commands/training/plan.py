"""What a `train` request means: a new run, the rest of an old one, or a new run from old weights. No torch."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aptlab.config import Config, check, compose
from aptlab.errors import CheckpointError, ConfigError, suggest

log = logging.getLogger("aptlab")

# Keys whose change leaves the meaning of a checkpoint's state alone.
FREE = (
    *("job", "run_dir", "ckpt", "load", "vocab", "paths", "logger", "device", "callbacks", "compile"),
    *("trainer.max_steps", "trainer.max_epochs", "trainer.max_time", "trainer.val_check_interval"),
    *("trainer.limit_val_batches", "trainer.log_every_n_steps", "trainer.num_sanity_val_steps"),
    *("trainer.profiler", "trainer.detect_anomaly", "trainer._target_", "trainer._partial_"),
)
# Keys whose change makes another model out of the same weights.
MODEL = ("size", "rope", "smooth", "attention", "ffn", "norm", "model", "context")
LOADS = ("auto", "resume", "weights")


@dataclass(frozen=True)
class Plan:
    """A checked request.

    config   the composed configuration
    ckpt     the checkpoint to start from, or None
    resume   whether to continue its run (True) or to start a new one from its weights (False)
    notes    lines to show before training: what differs from the checkpoint
    """

    config: Config
    ckpt: Path | None = None
    resume: bool = False
    notes: tuple[str, ...] = ()


def plan(args: list[str]) -> Plan:
    """Compose and check; with `ckpt=`, compose the checkpoint's own overrides first and the new ones after them."""
    ckpt = os.environ.get("APTLAB_CKPT") or value_of(args, "ckpt")
    load = value_of(args, "load") or "auto"
    if load not in LOADS:
        raise ConfigError(f"load={load}: no such way to load{suggest(load, LOADS)}")
    if ckpt is None:
        config = compose("train", args)
        check(config)
        if load != "auto":
            raise ConfigError(f"load={load} needs a checkpoint; add ckpt=last or ckpt=<path>")
        return Plan(config)
    return from_checkpoint(ckpt, load, args)


def value_of(args: list[str], key: str) -> str | None:
    """The last value that the command line gives to a root key; null counts as none."""
    values = [arg.partition("=")[2] for arg in args if arg.startswith(f"{key}=")]
    return None if not values or values[-1] in ("", "null") else values[-1].strip("'\"")


def from_checkpoint(ckpt: str, load: str, args: list[str]) -> Plan:
    from aptlab.checkpoint import find, read_manifest

    outputs = Path(value_of(args, "paths.root") or "outputs") / (value_of(args, "job") or "train")
    path = find(outputs if ckpt in ("last", "best") else ckpt, which=ckpt if ckpt in ("last", "best") else "last")
    manifest = read_manifest(path)
    stored = [arg for arg in manifest.overrides if arg.partition("=")[0] not in ("ckpt", "load")]
    new = [arg for arg in args if arg.partition("=")[0] not in ("ckpt", "load")]
    config = compose("train", [*stored, *new])
    check(config)
    changed = changes(manifest.config, config.resolved()) if manifest.config else {}
    resume = decide(load, changed)
    if not resume:
        fresh = [arg for arg in stored if arg.partition("=")[0] not in ("run_dir", "job")]
        config = compose("train", [*fresh, *new])
    elif value_of(new, "run_dir") is None:
        folder = path.parent.parent if path.parent.name == "checkpoints" else None
        if folder is not None:
            config = compose("train", [*stored, *new, f"run_dir='{folder}'"])
    return Plan(config, path, resume, notes=describe(path, changed, resume))


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}; lists count as values."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Every leaf that differs, as (old, new). Copies made by slots (task.net…, model.shape…) are left out."""
    before, after = (flat({k: v for k, v in tree.items() if k not in ("task", "model")}) for tree in (old, new))
    for key in ("tied", "_target_"):
        before[f"model.{key}"] = (old.get("model") or {}).get(key)
        after[f"model.{key}"] = (new.get("model") or {}).get(key)
    keys = [key for key in {**before, **after} if not belongs(key, ("vocab", "data.tokenizer", "data.context"))]
    return {key: (before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)}


def belongs(key: str, prefixes: tuple[str, ...]) -> bool:
    return any(key == prefix or key.startswith(f"{prefix}.") for prefix in prefixes)


def decide(load: str, changed: Mapping[str, tuple[Any, Any]]) -> bool:
    """Whether to resume. `auto` resumes unless the model is another one; other changes need a word from the user."""
    model = sorted(key for key in changed if belongs(key, MODEL))
    other = sorted(key for key in changed if not belongs(key, MODEL) and not belongs(key, FREE))
    if load == "weights":
        return False
    if load == "resume":
        if model:
            raise CheckpointError(
                f"load=resume cannot change the model ({listed(model, changed)}); use load=weights for a new run "
                "from these weights"
            )
        return True
    if model:
        return False
    if other:
        raise CheckpointError(
            f"the checkpoint was trained with other settings: {listed(other, changed)}; say load=resume to keep all "
            "state and go on with the new settings, or load=weights for a new run from these weights"
        )
    return True


def listed(keys: list[str], changed: Mapping[str, tuple[Any, Any]]) -> str:
    return ", ".join(f"{key} {changed[key][0]} -> {changed[key][1]}" for key in keys)


def describe(path: Path, changed: Mapping[str, tuple[Any, Any]], resume: bool) -> tuple[str, ...]:
    lines = [f"{'continuing from' if resume else 'new run from the weights of'} {path}"]
    shown = sorted(key for key in changed if not belongs(key, ("job", "run_dir", "ckpt", "load", "vocab", "paths")))
    lines += [f"  {key}: {changed[key][0]} -> {changed[key][1]}" for key in shown]
    return tuple(lines)
