"""Which runs were validated on the same rows of the same text: only their losses can be set against each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from aptlab.report.groups import RunGroup, get_setting
from aptlab.runs import Run

FREE = ("tokens/s", "parameters", "skipped")  # metrics that no validation text enters
PREFIX = 8  # hex digits of a fingerprint
LONGEST = 60  # characters of a setting
TEXT_NODES = ("source", "tokenizer")  # what a fingerprint is made of, beside the split


def split_by_validation(groups: Sequence[RunGroup], metric: str) -> list[list[int]]:
    """Rows of a comparison by what their metric was measured on; a row of runs that differ in it stands alone.

    Rows of validation count for `val/…` alone, the text for everything else that is measured on text. A run that says
    nothing of its rows counts as validated on the first ones that are known.
    """
    if metric in FREE:
        return [list(range(len(groups)))]
    rows = next((found for run in _list_runs(groups) if (found := describe_validation_rows(run.config))), "")
    parts: dict[Any, list[int]] = {}
    for i, group in enumerate(groups):
        keys = {
            (_fingerprint(run), (describe_validation_rows(run.config) or rows) if metric.startswith("val/") else "")
            for run in group.runs.values()
        }
        parts.setdefault(keys.pop() if len(keys) == 1 else i, []).append(i)
    return list(parts.values())


def warn_unequal_data(groups: Sequence[RunGroup]) -> list[str]:
    """A warning where the text differs that runs were trained and validated on."""
    texts: dict[str, str] = {}
    differing = list_text_settings(list(_list_runs(groups)))
    for group in groups:
        for run in group.runs.values():
            texts.setdefault(_fingerprint(run), f"{describe_text(run, differing)} ({group.name})")
    if len(texts) < 2:
        return []
    return [f"not the same data: {' against '.join(list(texts.values())[:3])}; losses cannot be compared"]


def describe_text(run: Run, settings: Sequence[str]) -> str:
    """The text of a run by what tells it from the others: `files source.files=a.txt [1a2b3c4d]`."""
    values = {key: get_setting(run, key) for key in settings}
    words = [f"{key}={value if len(value) <= LONGEST else value[:LONGEST] + '…'}" for key, value in values.items()]
    name = str(run.result.data.get("name")) if run.result else ""
    return " ".join([name, *words, f"[{_fingerprint(run)[:PREFIX]}]"])


def list_text_settings(runs: Sequence[Run]) -> list[str]:
    """Settings of source and tokenizer that differ between runs: `source.files`."""
    nodes = {node: run.config[node] for run in runs for node in TEXT_NODES if node in run.config}
    keys = [node for node in nodes if not all(isinstance(run.config.get(node), Mapping) for run in runs)]
    for run in runs:
        keys += [f"{node}.{key}" for node in nodes if node not in keys for key in run.config[node] if key != "_target_"]
    return [key for key in dict.fromkeys(keys) if len({get_setting(run, key) for run in runs}) > 1]


def warn_unequal_validation(groups: Sequence[RunGroup]) -> list[str]:
    """A warning where runs were not validated on the same rows; the text itself is a matter of `data`."""
    rows: dict[str, str] = {}
    for group in groups:
        for run in group.runs.values():
            if found := describe_validation_rows(run.config):
                rows.setdefault(found, f"{found} ({group.name})")
    if len(rows) < 2:
        return []
    return [f"not the same validation rows: {' against '.join(list(rows.values())[:3])}; val/loss cannot be compared"]


def describe_validation_rows(config: Mapping[str, Any]) -> str:
    """The validation rows of a run: `512 rows of 256 tokens`; empty where its configuration says nothing of them."""
    data, trainer = config.get("data"), config.get("trainer") or {}
    if not isinstance(data, Mapping) or "val_batches" not in data or "batch" not in data:
        return ""
    count = "all" if data["val_batches"] is None else f"{data['val_batches'] * data['batch']:,}"
    masked = (data.get("rows") or {}).get("document_mask")
    limit = trainer.get("limit_val_batches")
    return (
        f"{count} rows of {config.get('context')} tokens"
        + (" that end at their documents" if masked else "")
        + (f", limit_val_batches={limit}" if limit is not None else "")
    )


def _list_runs(groups: Sequence[RunGroup]) -> Iterator[Run]:
    return (run for group in groups for run in group.runs.values())


def _fingerprint(run: Run) -> str:
    return str(run.result.data.get("fingerprint")) if run.result else ""
