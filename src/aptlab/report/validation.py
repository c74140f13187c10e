"""Which runs were validated on the same rows of the same text: only their losses can be set against each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from aptlab.report.groups import RunGroup, get_setting
from aptlab.runs import Run

FREE = ("tokens/s", "parameters", "skipped")  # metrics that no validation text enters
PREFIX = 8  # hex digits of a fingerprint
LONGEST = 60  # characters of a setting
PER_BYTE = "val/bpb"
WHOLE = 0.99  # share of the validation tokens from which on it is all of them; the last row is seldom full
TEXT_NODES = ("source", "tokenizer")  # what a fingerprint is made of, beside the split


def split_by_validation(groups: Sequence[RunGroup], metric: str) -> list[list[int]]:
    """Rows of a comparison by what their metric was measured on; a row of runs that differ in it stands alone.

    Rows of validation count for `val/…` alone, the text for everything else that is measured on text. A run that says
    nothing of its rows counts as validated on the first ones that are known. Bits per byte are measured on the text and
    not on its tokens: there runs with other tokens are alike that scored the whole of the same text.
    """
    if metric in FREE:
        return [list(range(len(groups)))]
    rows = next((found for run in _list_runs(groups) if (found := describe_validation_rows(run.config))), "")

    def find_key(run: Run) -> Any:
        tokens = _fingerprint(run), (describe_validation_rows(run.config) or rows) if metric.startswith("val/") else ""
        return texts.get(tokens, tokens) if metric == PER_BYTE else tokens

    texts: dict[Any, Any] = {}
    if metric == PER_BYTE:
        named = [(find_key(run), find_scored_text(run)) for run in _list_runs(groups)]
        texts = {key: text for key, text in named if text is not None}
    parts: dict[Any, list[int]] = {}
    for i, group in enumerate(groups):
        keys = {find_key(run) for run in group.runs.values()}
        parts.setdefault(keys.pop() if len(keys) == 1 else i, []).append(i)
    return list(parts.values())


def find_scored_text(run: Run) -> tuple[Any, ...] | None:
    """The validation text of a run and how it was cut, where its rows take the whole of it; else None."""
    if (text := _val_text(run)) is None or measure_scored_share(run) < WHOLE:
        return None
    rows = run.config["data"].get("rows") or {}
    return text, run.config.get("context"), bool(rows.get("document_mask"))


def warn_unequal_data(groups: Sequence[RunGroup]) -> list[str]:
    """A warning where the text differs that runs were trained and validated on."""
    texts: dict[str, str] = {}
    runs = list(_list_runs(groups))
    differing = list_text_settings(runs)
    for group in groups:
        for run in group.runs.values():
            texts.setdefault(_fingerprint(run), f"{describe_text(run, differing)} ({group.name})")
    if len(texts) < 2:
        return []
    validated = {_val_text(run) for run in runs}
    alone = len(validated) == 1 and None not in validated
    said = "; losses cannot be compared" + (", val/bpb can: they have one validation text" if alone else "")
    return [f"not the same data: {' against '.join(list(texts.values())[:3])}{said}"]


def warn_unranked_bits(groups: Sequence[RunGroup], metric: str) -> list[str]:
    """Why runs with other tokens are not ranked by bits per byte, where they may have the same text."""
    if metric != PER_BYTE or len({_fingerprint(run) for run in _list_runs(groups)}) < 2:
        return []
    warnings: dict[str, str] = {}
    for group in groups:
        for run in group.runs.values():
            if _val_text(run) is None:
                warnings.setdefault(
                    "text",
                    f"the result of {group.name} does not name its validation text, as those of earlier versions; "
                    f"train it again to rank {metric} over other tokens",
                )
            elif (share := measure_scored_share(run)) < WHOLE:
                warnings.setdefault(
                    "part",
                    f"{group.name} was validated on {100 * share:.3g} % of its validation text, and other tokens give "
                    f"another part; to rank {metric} over other tokens take data.val_batches=null and a text of many "
                    "rows",
                )
    return list(warnings.values())


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


def _val_text(run: Run) -> str | None:
    """The digest of the validation text, None where an earlier version wrote the result."""
    found = run.result.data.get("val_text") if run.result else None
    return found if isinstance(found, str) and found else None


def measure_scored_share(run: Run) -> float:
    """The share of its validation tokens that the validation rows of a run hold; 0 where it is not known."""
    data, trainer = run.config.get("data"), run.config.get("trainer") or {}
    tokens, context = run.result.data.get("val_tokens") if run.result else None, run.config.get("context")
    if not isinstance(data, Mapping) or not isinstance(tokens, int) or not isinstance(context, int):
        return 0.0
    if tokens < 2 or "val_batches" not in data or trainer.get("limit_val_batches") is not None:
        return 0.0
    rows = (tokens - 1) // context
    if data["val_batches"] is not None:
        rows = min(rows, data["val_batches"] * data["batch"])
    return rows * context / (tokens - 1)
