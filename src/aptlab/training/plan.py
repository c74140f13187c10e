"""What a `train` request means: a new run, the rest of an old one, or a new run from old weights. No torch."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aptlab.config import (
    Config,
    Fallback,
    check,
    compose,
    escape_text,
    expand_shortcuts,
    find_missing_nodes,
    refuse_interpolations,
)
from aptlab.config.destinations import says_where
from aptlab.config.sweeps import format_override, format_text
from aptlab.errors import CheckpointError, ConfigError, suggest_option
from aptlab.redact import redact_overrides
from aptlab.runs.commands import TypedWords, repeat_words
from aptlab.training.defaults import is_unnamed_default
from aptlab.training.ended import describe_finished_run
from aptlab.training.folders import refuse_used_folder
from aptlab.training.from_weights import check_size, describe_unnamed_text, drop_recipe_values, flatten_config
from aptlab.training.inherited import inherit_overrides, list_lasting_words
from aptlab.training.labels import list_position_notes
from aptlab.training.trainer_keys import find_trainer_problems

log = logging.getLogger("aptlab")

# Keys whose change leaves the meaning of a checkpoint's state alone.
FREE = (
    *("job", "run_dir", "ckpt", "load", "paths", "logger", "device", "callbacks", "compile", "validate", "evals"),
    "data.verify",
    *("trainer.max_steps", "trainer.max_epochs", "trainer.max_time", "trainer.val_check_interval"),
    *("trainer.limit_val_batches", "trainer.log_every_n_steps", "trainer.num_sanity_val_steps"),
    *("trainer.profiler", "trainer.detect_anomaly", "trainer._target_", "trainer._partial_"),
)
# Keys whose change makes another model out of the same weights.
MODEL = ("size", "rope", "bias", "embed", "smooth", "attention", "ffn", "norm", "block", "model", "context", "vocab")
SITES = ("attention", "ffn", "norm", "smooth")  # groups that every site of a block takes a copy of
LOADS = ("auto", "resume", "weights", "remap", "importance")


@dataclass(frozen=True)
class TrainPlan:
    """A checked request.

    config    the composed configuration
    ckpt      the checkpoint to start from, or None
    resume    whether to continue its run (True) or to start a new one from its weights (False)
    remap     whether rows of the embedding move to the ids of another tokenizer
    sort      whether the hidden units of nested layers are sorted by their importance
    notes     lines to show before training: what differs from the checkpoint
    changed   keys that differ from the checkpoint
    finished  what to say in place of training, where the run has come to its end already
    typed     what the command line says beside the checkpoint
    """

    config: Config
    ckpt: Path | None = None
    resume: bool = False
    remap: bool = False
    sort: bool = False
    notes: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    finished: str | None = None
    typed: tuple[str, ...] = ()

    def list_typed_words(self) -> TypedWords:
        """What a message repeats of the command line."""
        words = tuple(redact_overrides(self.typed))
        return TypedWords(words, list_lasting_words(self.typed), self.ckpt if self.resume else None)


def plan_training(args: list[str]) -> TrainPlan:
    """Compose and check; with `ckpt=`, compose the checkpoint's own overrides first and the new ones after them."""
    ckpt = os.environ.get("APTLAB_CKPT") or read_root_value(args, "ckpt")
    load = read_root_value(args, "load") or "auto"
    if load not in LOADS:
        raise ConfigError(f"load: no such value {load!r}{suggest_option(load, LOADS)}")
    if ckpt is None:
        config = compose("train", args)
        check_training(config)
        if load != "auto":
            raise ConfigError(f"load={load} needs a checkpoint; add ckpt=last or ckpt=<path>")
        refuse_used_folder(config.cfg.run_dir, args)
        return TrainPlan(config, notes=tuple(list_position_notes(config)), typed=tuple(args))
    return plan_from_checkpoint(ckpt, load, args)


def check_training(config: Config) -> None:
    """The check of any configuration, and what a training run demands of `trainer.` and `validate`."""
    check(config, more=find_trainer_problems(config.cfg))


def read_root_value(args: list[str], key: str) -> str | None:
    """The last value that the command line gives to a root key; null counts as none."""
    values = [arg.partition("=")[2] for arg in args if arg.startswith(f"{key}=")]
    return None if not values or values[-1] in ("", "null") else values[-1].strip("'\"")


def plan_from_checkpoint(ckpt: str, load: str, args: list[str]) -> TrainPlan:
    # Imported here, for a request without a checkpoint needs none of it.
    from aptlab.checkpoint import find_run_folder, read_manifest
    from aptlab.restore.upgrade import upgrade_manifest

    path = choose_named_checkpoint(ckpt, args)
    manifest = upgrade_manifest(read_manifest(path))
    new = expand_shortcuts([arg for arg in args if arg.partition("=")[0] not in ("ckpt", "load")])
    stored = filter_stored_overrides(drop_recipe_values(manifest.overrides, new), new, manifest.choices)
    inherited = inherit_overrides(stored, new, manifest.config)
    fallback = Fallback(manifest.config, manifest.choices, manifest.overrides)
    gone = find_missing_nodes([*inherited.kept, *new])
    stored = [arg for arg in inherited.kept if not is_below_node(arg, gone)]
    config = compose("train", [*stored, *new], fallback)
    carried = inherit_trained_values(config, manifest.config, [*stored, *new])
    stored = [*stored, *(format_carried(key, value) for key, value in carried.items())]
    config = compose("train", [*stored, *new], fallback) if carried else config
    check_size(new, config, (manifest.config or {}).get("size") or {})
    check_training(config)
    changed = compare_configs(manifest.config, config.public()) if manifest.config else {}
    trained = manifest.step > 0 or bool(manifest.run_dir)  # else it was imported
    resume = decide_resume(load, changed, trained=trained)
    folder = find_run_folder(path)
    if not resume:
        fresh = [arg for arg in stored if arg.partition("=")[0] not in ("run_dir", "job")]
        config = config if fresh == stored else compose("train", [*fresh, *new], fallback)
        refuse_used_folder(config.cfg.run_dir, args)
    elif read_root_value(new, "run_dir") is None and folder != path.parent:
        config = set_run_dir(config, folder)
    lost = inherited.describe(folder=config.cfg.run_dir == str(folder))
    lines = [f"  {key}: {value}, as the weights have it" for key, value in carried.items() if key not in changed]
    lines += [] if trained else describe_unnamed_text(new, config)
    lines += [] if resume else list_position_notes(config)
    keys = tuple(changed)
    if not trained:  # all else in its configuration is a default that nobody has trained with
        changed = {key: pair for key, pair in changed.items() if has_key_prefix(key, MODEL)}
    notes = (*describe_changes(path, changed, resume), *lines, *lost, *describe_missing_options(gone, manifest.choices))
    typed = tuple(arg for arg in args if arg.partition("=")[0] != "ckpt")
    remap, sort = load == "remap", load == "importance"
    plan = TrainPlan(config, path, resume, remap, sort, notes=notes, changed=keys, typed=typed)
    return dataclasses.replace(plan, finished=describe_planned_end(plan, manifest.step))


def choose_named_checkpoint(ckpt: str, args: list[str]) -> Path:
    """The checkpoint that `ckpt=` means beside the words `paths.root=` and `job=`."""
    from aptlab.checkpoint import choose_checkpoint

    root = read_root_value(args, "paths.root") or "outputs"
    return choose_checkpoint(ckpt, root=root, job=read_root_value(args, "job"))


def describe_planned_end(plan: TrainPlan, step: int, total: int | None = None) -> str | None:
    """What to say where the plan goes on with a finished run, in its own folder, and has nothing to do there.

    step   of the checkpoint
    total  steps that are asked for, where they are known
    """
    folder = plan.config.cfg.run_dir
    if not plan.resume or folder is None:
        return None
    with repeat_words(plan.list_typed_words()):
        return describe_finished_run(Path(folder), plan.config.cfg.trainer, plan.changed, step=step, total=total)


def is_below_node(arg: str, nodes: Sequence[str]) -> bool:
    """Whether an override changes a value inside one of the nodes; "" is the whole configuration."""
    key = arg.lstrip("+~").partition("=")[0]
    return any(not node or key.startswith(f"{node}.") for node in nodes) and "." in key


def describe_missing_options(nodes: Sequence[str], choices: Mapping[str, Any]) -> list[str]:
    """What to say of options without a file."""
    names = [node or "recipe" for node in nodes]
    return [f"  {name}={choices.get(name, '…')}: no such file here; its values are the checkpoint's" for name in names]


def inherit_trained_values(config: Config, old: Mapping[str, Any] | None, overrides: Sequence[str]) -> dict[str, Any]:
    """What the rule has from the old weights, by key, where nobody gave it: their context, base, layout, part.

    `${context}` in the option means the context of this run, which an extension makes longer.
    """
    from aptlab.restore.rope import find_inherited_values

    rope, trained = config.resolved().get("rope") or {}, (old or {}).get("rope") or {}
    keys = {arg.lstrip("+~").partition("=")[0] for arg in overrides}
    taken = find_inherited_values(rope, trained, keys)
    length = trained.get("original_len") or (old or {}).get("context")
    unknown = "original_len" not in rope or length is None or rope["original_len"] == length
    return taken if unknown or "rope.original_len" in keys else {**taken, "rope.original_len": length}


def format_carried(key: str, value: Any) -> str:
    """The override that gives a value of the checkpoint's configuration to a key; ConfigError for an interpolation."""
    refuse_interpolations(value, key)
    if isinstance(value, str) and not value.isidentifier():
        return f"++{format_override(key, value)}"
    plain = "null" if value is None else str(value).lower() if isinstance(value, bool) else value
    return f"++{key}={plain}"


def set_run_dir(config: Config, folder: Path) -> Config:
    """The configuration with `run_dir`, among the overrides too."""
    overrides = [arg for arg in config.overrides if arg.partition("=")[0] != "run_dir"]
    placed = config.replaced({"run_dir": escape_text(str(folder))})
    return dataclasses.replace(placed, overrides=[*overrides, format_text("run_dir", str(folder))])


def filter_stored_overrides(stored: list[str], new: list[str], choices: Mapping[str, Any]) -> list[str]:
    """The stored overrides that the new ones do not replace.

    A new option of a group replaces the values set inside the old one: `rope=standard` drops `rope.factor=8`.
    """
    chosen = dict(arg.lstrip("+").split("=", 1) for arg in new if "=" in arg)
    replaced = [key for key, value in chosen.items() if key in choices and choices[key] != value]
    gone = ("ckpt", "load", *(f"{group}." for group in replaced))
    remaining = [arg for arg in stored if arg not in new]
    return [
        arg
        for arg in remaining
        if not any(matches_key_pattern(arg.lstrip("+~").partition("=")[0], key) for key in gone)
    ]


def matches_key_pattern(key: str, pattern: str) -> bool:
    return key.startswith(pattern) if pattern.endswith(".") else key == pattern


def compare_configs(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Every leaf that differs, as (old, new). Copies made by slots (task.net…, model.shape…) are left out.

    `vocab` counts only where both say a number: null means what the tokenizer has, which is filled in later.
    """
    from aptlab.restore.upgrade import fill_added

    old, new = fill_added(old), fill_added(new)  # an option file may lack what a class has got, too
    before, after = (
        flatten_config({k: v for k, v in tree.items() if k not in ("task", "model")}) for tree in (old, new)
    )
    for tree, leaves in ((old, before), (new, after)):
        model = tree.get("model") or {}
        leaves |= flatten_config({key: model.get(key) for key in ("tied", "head", "embedding", "_target_")}, "model.")
    copies = ["data.tokenizer", "data.context", "data.source", "data.scenario"]
    if None in (before.get("vocab"), after.get("vocab")):
        copies.append("vocab")
    keys = [key for key in {**before, **after} if not has_key_prefix(key, copies)]
    found = {key: (before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)}
    found = {key: pair for key, pair in found.items() if not is_unnamed_default(key, old, new)}
    return {key: pair for key, pair in found.items() if not is_slot_copy(key, found)}


def is_slot_copy(key: str, changed: Mapping[str, tuple[Any, Any]]) -> bool:
    """Whether a changed leaf is another one seen through a slot, as `block.sites.ffn.smooth.tau` is `smooth.tau`."""
    root, _, rest = key.partition(".")
    name = rest.rpartition(".")[2]
    if root in ("data", "callbacks", "evals", "objective"):
        return name == "seed" and changed.get("seed") == changed[key]
    others = [other for other in changed if other.partition(".")[0] in SITES and other.rpartition(".")[2] == name]
    return root == "block" and any(changed[other] == changed[key] for other in others)


def has_key_prefix(key: str, prefixes: Sequence[str]) -> bool:
    return any(key == prefix or key.startswith(f"{prefix}.") for prefix in prefixes)


def decide_resume(load: str, changed: Mapping[str, tuple[Any, Any]], *, trained: bool = True) -> bool:
    """Whether to resume. `auto` resumes unless the model is another one; other changes need a word from the user.

    A checkpoint that no training wrote (an imported one) holds weights alone.
    """
    model = sorted(key for key in changed if has_key_prefix(key, MODEL))
    free = {key for key in changed if has_key_prefix(key, FREE) or says_where(key)}
    other = sorted(key for key in changed if not has_key_prefix(key, MODEL) and key not in free)
    if not trained and load == "resume":
        raise CheckpointError("load=resume: this checkpoint holds weights alone; use load=weights")
    if load in ("weights", "remap", "importance") or not trained:
        return False
    if load == "resume":
        if model:
            raise CheckpointError(
                f"load=resume cannot change the model ({format_changes(model, changed)}); use load=weights for a new "
                "run from these weights"
            )
        return True
    if model:
        return False
    if other:
        raise CheckpointError(
            f"the checkpoint was trained with other settings: {format_changes(other, changed)}; say load=resume to "
            "keep all state and go on with the new settings, or load=weights for a new run from these weights"
            f"{describe_kept_data(other)}"
        )
    return True


def describe_kept_data(keys: Sequence[str]) -> str:
    """What load=resume cannot do where the text or the tokenizer is another one."""
    text = any(has_key_prefix(key, ("source", "data.split", "data.rows")) for key in keys)
    words = any(has_key_prefix(key, ("tokenizer",)) for key in keys)
    return ("; load=resume takes the same text alone, at another place perhaps" if text else "") + (
        "; load=remap takes a tokenizer with other ids" if words else ""
    )


def format_changes(keys: list[str], changed: Mapping[str, tuple[Any, Any]]) -> str:
    return ", ".join(f"{key} {changed[key][0]} -> {changed[key][1]}" for key in keys)


def describe_changes(path: Path, changed: Mapping[str, tuple[Any, Any]], resume: bool) -> tuple[str, ...]:
    lines = [f"{'continuing from' if resume else 'new run from the weights of'} {path}"]
    shown = sorted(key for key in changed if not has_key_prefix(key, ("job", "run_dir", "ckpt", "load", "paths")))
    lines += [f"  {key}: {changed[key][0]} -> {changed[key][1]}" for key in shown]
    return tuple(lines)
