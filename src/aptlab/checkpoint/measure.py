"""What the metric of a checkpoint is a measure of, and which checkpoints may be compared by theirs. No torch."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aptlab.checkpoint.manifest import Manifest, read_manifest
from aptlab.errors import CheckpointError

WITHIN_RUN = ("monitor", "mode", "validation rows", "trainer.limit_val_batches", "data.rows")


@dataclass(frozen=True)
class Rated:
    """A checkpoint with a finite metric; `value` is small for a good one, whatever the mode is."""

    path: Path
    value: float
    manifest: Manifest


def describe_measure(monitor: str, mode: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """By what and on what a run is validated: numbers compare where this is equal.

    config  the resolved configuration; what it lacks is null here
    """
    data, trainer = config.get("data") or {}, config.get("trainer") or {}
    batches, batch = data.get("val_batches"), data.get("batch")
    return {
        "monitor": monitor,
        "mode": mode,
        "validation rows": batches * batch if isinstance(batches, int) and isinstance(batch, int) else None,
        "trainer.limit_val_batches": trainer.get("limit_val_batches"),
        "data.rows": data.get("rows"),
        "context": config.get("context"),
        "data.split": data.get("split"),
        "source": config.get("source"),
        "tokenizer": config.get("tokenizer"),
    }


def find_measure_change(old: Mapping[str, Any], new: Mapping[str, Any]) -> str | None:
    """What makes two measures of one run differ, as "monitor val/loss -> val/ppl", or None.

    A run goes on with the text it had, whatever its files are called by now, so source, tokenizer and split are equal.
    """
    for name in WITHIN_RUN:
        before, now = old.get(name), new.get(name)
        unknown = name == "data.rows" and before is None  # written by earlier code
        if before != now and not unknown:
            return f"{name} {before} -> {now}" if not isinstance(now, Mapping) else f"{name} changed"
    return None


def _read_rated(files: Iterable[Path]) -> Iterator[Rated]:
    """Those whose manifests hold a finite metric."""
    for path in files:
        try:
            manifest = read_manifest(path)
        except CheckpointError:
            continue
        if manifest.metric is not None and math.isfinite(manifest.metric):
            yield Rated(path, manifest.metric if manifest.mode == "min" else -manifest.metric, manifest)


def rate_checkpoints(files: Iterable[Path]) -> dict[str, list[Rated]]:
    """The files of one run whose manifests hold a finite metric, by what they measure; best first, newer before older.

    Files are told by their content: the text of one name may be another one by now. What an earlier version saved has
    the text of the run's later checkpoints.
    """
    read = list(_read_rated(files))
    texts = {one.manifest.fingerprint for one in read} - {""}
    later = texts.pop() if len(texts) == 1 else ""
    found: dict[str, list[Rated]] = {}
    for one in read:
        measure = describe_measure(one.manifest.monitor, one.manifest.mode, one.manifest.config)
        measure["text"] = one.manifest.fingerprint or later
        found.setdefault(json.dumps(measure, sort_keys=True, default=str), []).append(one)
    for rated in found.values():
        rated.sort(key=lambda one: (one.value, -one.manifest.step))
    return found
