"""Runs that differ only in their seed, put together; and what tells the groups apart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from aptlab.errors import AptlabError, suggest_option
from aptlab.runs import Result, Run

# What says where a run writes or how it began, not what was tried.
RUN_ONLY = ("seed", "job", "run_dir", "ckpt", "load", "paths", "logger", "recipe")
MISSING = "-"
START = "start"  # a column of its own: whose weights a run began with
SCRATCH = "scratch"


@dataclass
class RunGroup:
    """Finished runs of one setting, by seed.

    `labels` are the values that tell it from the other groups, `shown` the same with long numbers cut.
    """

    labels: dict[str, str]
    runs: dict[int, Run] = field(default_factory=dict)
    shown: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """`rope=yarn smooth=none`; `all runs` if nothing differs."""
        return " ".join(f"{key}={value}" for key, value in (self.shown or self.labels).items()) or "all runs"

    @property
    def results(self) -> list[Result]:
        """The results in order of seed."""
        return [run.result for _, run in sorted(self.runs.items()) if run.result is not None]


def group_runs(runs: Sequence[Run], by: Sequence[str] = ()) -> tuple[list[RunGroup], list[str]]:
    """Groups in order of first appearance, and notes about runs that were left out or pooled.

    Without `by`, the columns are the group options and overridden keys that differ between any two runs.
    Raises AptlabError if `by` names something that no run has.
    """
    runs = [run for run in runs if run.result is not None]
    keys = list(
        dict.fromkeys(key for run in runs for key in list_settings(run) if key.partition(".")[0] not in RUN_ONLY)
    )
    keys.append(START)
    differing = [key for key in keys if len({get_setting(run, key) for run in runs}) > 1]
    for key in by:
        if all(get_setting(run, key) == MISSING for run in runs):
            raise AptlabError(f"by={key}: no run has this setting{suggest_option(key, keys)}")
    columns, groups, notes = list(by) or drop_named_dims(differing, runs), {}, []
    short = {key: _shortened({get_setting(run, key) for run in runs}) for key in columns}
    for run in runs:
        labels = {key: get_setting(run, key) for key in columns}
        group = groups.setdefault(
            tuple(labels.values()), RunGroup(labels, shown={key: short[key][value] for key, value in labels.items()})
        )
        seed = run.result.seed if run.result else 0
        if seed in group.runs and all(get_setting(run, key) == get_setting(group.runs[seed], key) for key in differing):
            notes.append(f"{group.name}: seed {seed} was run more than once; the latest is used ({run.path})")
        elif seed in group.runs:
            seed = max(group.runs) + 1  # a pooled run is a sample of its own
        group.runs[seed] = run
    pooled = [key for key in differing if key not in columns and _varies(groups.values(), key)]
    if pooled:
        notes.append(f"by={','.join(by)}: rows average over runs that also differ in {', '.join(pooled)}")
    return list(groups.values()), notes


def drop_named_dims(keys: Sequence[str], runs: Sequence[Run]) -> list[str]:
    """The columns without single dims of sizes whose names tell them apart already, as those of imported models do."""
    dims = [key for key in keys if key.startswith("size.")]
    names = {get_setting(run, "size") for run in runs}
    whole = {tuple(get_setting(run, key) for key in ("size", *dims)) for run in runs}
    return [key for key in keys if key not in dims] if len(names) == len(whole) else list(keys)


def list_settings(run: Run) -> list[str]:
    """Keys that this run overrode, in the order of its command line, then the groups it chose without a word."""
    keys = []
    for override in run.overrides or (run.result.overrides if run.result else []):
        key = override.lstrip("+~").partition("=")[0].partition("@")[0]
        if key:
            keys.append(key)
    return list(dict.fromkeys([*keys, *(run.choices or (run.result.choices if run.result else {}))]))


def get_setting(run: Run, key: str) -> str:
    """The option or the value that a run has for a key, as text; MISSING where the key does not exist."""
    if key == START:
        return describe_start(run)
    choices = run.choices or (run.result.choices if run.result else {})
    if key in choices:
        return MISSING if choices[key] is None else str(choices[key])
    node: Any = run.config
    for part in key.split("."):
        node = node.get(part, None) if isinstance(node, dict) else None
    if node is not None and not isinstance(node, dict):
        return _text(node)
    for override in reversed(run.overrides or (run.result.overrides if run.result else [])):
        name, _, value = override.lstrip("+~").partition("=")
        if name == key:
            return value
    return MISSING


def describe_start(run: Run) -> str:
    """`scratch`, or the run and the step of the weights that a run began with: `base@400`.

    A run of an earlier version has them in its command line alone.
    """
    origin = run.result.origin if run.result else {}
    if origin:
        path = PurePath(str(origin.get("checkpoint")))
        return f"{path.parent.parent.name or path.name}@{origin.get('step')}"
    given = dict(str(word).split("=", 1) for word in run.environment.get("command") or [] if "=" in str(word))
    return f"weights of {given['ckpt']}" if given.get("load") == "weights" and "ckpt" in given else SCRATCH


def _text(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


def _shortened(values: set[str]) -> dict[str, str]:
    """Each value -> what to show: numbers with four digits, where they can still be told apart."""
    short = {}
    for value in values:
        try:
            short[value] = f"{float(value):.4g}" if len(value) > 8 else value
        except ValueError:
            short[value] = value
    return short if len(set(short.values())) == len(values) else {value: value for value in values}


def _varies(groups: Iterable[RunGroup], key: str) -> bool:
    return any(len({get_setting(run, key) for run in group.runs.values()}) > 1 for group in groups)
