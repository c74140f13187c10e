"""Whether the trials of a search can be told apart by one number: only where all are measured on the same text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aptlab.checkpoint.measure import describe_measure
from aptlab.errors import ConfigError
from aptlab.report.validation import FREE, PER_BYTE

ROWS = ("validation rows", "trainer.limit_val_batches", "data.rows", "context")  # what only `val/…` is measured by
Corner = tuple[str, Mapping[str, Any]]  # `data.batch=8` and the resolved configuration with it


def check_comparable(metric: str, first: Mapping[str, Any], corners: Sequence[Sequence[Corner]]) -> None:
    """Raise one ConfigError with every axis of a search whose values are measured otherwise.

    first    the resolved configuration of the first trial
    corners  of every axis the values that are tried
    """
    if metric in FREE:
        return
    problems = []
    for axis in corners:
        for word, config in axis:
            if different := list_differences(metric, first, config):
                problems.append(
                    f"{axis[0][0]} and {word} are not measured alike ({', '.join(different)} differ), so there is no "
                    f"best {metric} among them; {write_way_out(metric, different, config)}"
                )
                break
    if problems:
        raise ConfigError("\n".join(problems))


def list_differences(metric: str, first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """What two runs are measured by or on that differs, as far as it matters to the metric."""
    one, two = (describe_measure(metric, "", config) for config in (first, second))
    names = [name for name in one if one[name] != two[name]]
    whole = all(scores_whole_text(config) for config in (first, second))
    free = set() if metric.startswith("val/") else set(ROWS)
    free |= {"tokenizer"} if metric == PER_BYTE and whole else set()
    return [name for name in names if name not in free]


def scores_whole_text(config: Mapping[str, Any]) -> bool:
    """Whether the validation rows of a configuration take all of the validation text."""
    data, trainer = config.get("data") or {}, config.get("trainer") or {}
    return data.get("val_batches", 0) is None and trainer.get("limit_val_batches") is None


def write_way_out(metric: str, different: Sequence[str], config: Mapping[str, Any]) -> str:
    """What to type instead."""
    if different == ["validation rows"]:
        return "set data.val_batches=null, which takes all rows"
    if different == ["tokenizer"] and metric.startswith("val/"):
        whole = "" if scores_whole_text(config) else " and data.val_batches=null"
        return f"set sweep.metric={PER_BYTE}{whole}, which counts bytes of the text"
    return f"search one of them at a time, or by sweep.metric={FREE[0]}"
