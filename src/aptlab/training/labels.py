"""What a run is called and what is noted of it: its options, its size by what it really is, its positions. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aptlab.config import Config
from aptlab.config.files import read_config_file

DEFAULT_ROPE = "standard"  # of aptlab train
ORDER = ("task", "size", "rope", "bias", "embed", "smooth", "attention", "ffn", "norm", "tokenizer", "objective")
ORDER += ("curriculum", "scenario", "replay", "optim", "schedule", "device")
QUIET = {"task": "language", "objective": "next_token", "bias": "none", "embed": "none"}  # named only where others
QUIET |= {"curriculum": "none", "scenario": "none", "replay": "none"}
UNITS = ((1e9, "B"), (1e6, "M"), (1e3, "k"))


def label_choices(config: Config, parameters: int) -> dict[str, Any]:
    """The chosen options by group; a size whose dims are not those of its option is named by its parameters.

    An imported model has its own dims, and `size` is the default of a command that it knows nothing of.
    """
    option = config.library.groups.get("size", {}).get(str(config.choices.get("size")))
    dims = config.resolved().get("size") or {}
    if option is None or not isinstance(dims, dict):
        return dict(config.choices)
    listed = read_config_file(option.path)
    # An option that builds on another one does not list its dims.
    same = "defaults" in listed or fill_dims(dims) == fill_dims(listed)
    return dict(config.choices) if same else {**config.choices, "size": format_count(parameters)}


def select_shown_choices(choices: dict[str, str]) -> dict[str, str]:
    """The chosen options, in the order of a table; usual ones of quiet groups are left out."""
    return {group: choices[group] for group in ORDER if group in choices and choices[group] != QUIET.get(group)}


def fill_dims(dims: Mapping[str, Any]) -> dict[str, Any]:
    """The dims of a size with those that follow from others, as `aptlab.nn.shape.Shape` has them."""
    given = {key: value for key, value in dims.items() if value is not None}
    dim, heads = given.get("dim"), given.get("heads")
    follows = {"kv_heads": heads, "head_dim": dim // heads} if isinstance(dim, int) and isinstance(heads, int) else {}
    return {**follows, **given}


def list_position_notes(config: Config) -> list[str]:
    """A line where positions are known in several ways and the rotation is there because nobody took it out."""
    choices = config.choices
    others = [f"{group}={choices[group]}" for group in ("embed", "bias") if choices.get(group) not in (None, "none")]
    typed = any(arg.lstrip("+").startswith(("rope=", "rope.")) for arg in config.overrides)
    if not others or typed or choices.get("rope") != DEFAULT_ROPE:
        return []
    return [
        f"note: rope={DEFAULT_ROPE} rotates queries and keys beside {' and '.join(others)}; rope=none leaves it out"
    ]


def format_count(count: int) -> str:
    """A number of parameters in three digits.

    >>> [format_count(count) for count in (836_864, 135_000_000, 1_240_000_000, 12)]
    ['837k', '135M', '1.24B', '12']
    """
    for unit, letter in UNITS:
        if count >= unit:
            return f"{count / unit:.3g}{letter}"
    return str(count)
