"""Difficulties of all rows: measured once, kept beside the token files with a checksum, and read again."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aptlab.curriculum.base import Course, Curriculum
from aptlab.curriculum.metrics import DifficultyMetric
from aptlab.curriculum.sections import find_sections
from aptlab.data.rows.numbered import NumberedRows, OrderedData, RowContents, RowRange
from aptlab.errors import AptlabError, ConfigError, DataError
from aptlab.runs.atomic import sync_folder
from aptlab.runs.lock import wait_for_lock
from aptlab.runs.progress import ProgressBar
from aptlab.runs.record import read_record, write_json_record

VERSION = 1
FOLDER = "difficulty"
log = logging.getLogger("aptlab")


def prepare_course(rule: Curriculum, data: object, *, seed: int, warn: bool = True) -> Course:
    """What a schedule of `rule` is opened with: every difficulty of `data` that needs no model, from the cache or new.

    Where the rows change at known steps, as those of tasks do, the difficulties of each section are by metrics that are
    fitted to its training rows and those of the sections before it: a function of the data and the section alone.

    warn  whether to say where a metric does not tell rows apart

    Raises ConfigError where rows of this data cannot be put into another order, or lack what a metric measures, and
    DataError where a metric fails on a row, which is named.
    """
    if not isinstance(data, OrderedData):
        raise ConfigError(
            f"{type(data).__name__} does not number its rows, so they cannot be put into another order; use "
            "curriculum=none, or data that does (aptlab.data.rows.numbered.OrderedData)"
        )
    folder, sections = Path(data.store_folder) / FOLDER, find_sections(data)
    train, metrics = data.number_rows("train"), rule.list_metrics()
    # What is to come is not known yet: a section's metrics are fitted to its own rows and those of earlier ones.
    known = cut_rows(train, [(0, sum(section.train)) for section in sections])
    sides = [cut_rows(train, [section.train for section in sections])]
    if rule.needs_val:
        sides.append(cut_rows(data.number_rows("val"), [section.val for section in sections]))
    found: list[dict[str, np.ndarray]] = [{}, {}]
    for name, metric in metrics.items():
        for side, parts in enumerate(sides):
            if not metric.of_model:
                found[side][name] = open_or_measure_parts(name, metric, parts, known, folder)
        if warn:
            warn_constant_scores(name, found[0].get(name))
    return Course(rows=len(train), seed=seed, scores=found[0], val_scores=found[1])


def cut_rows(rows: NumberedRows, spans: Sequence[tuple[int, int]]) -> list[NumberedRows]:
    """The rows of each span (first, count); all of them where there is no span."""
    return [RowRange(rows, *span) for span in spans] or [rows]


def warn_constant_scores(name: str, scores: np.ndarray | None) -> None:
    """Say where a metric does not tell rows apart."""
    if scores is not None and len(scores) > 1 and scores.min() == scores.max():
        log.warning(
            "curriculum: %s is %g for each of the %s training rows, so its order is random",
            *(name, scores[0], f"{len(scores):,}"),
        )


def open_or_measure_parts(
    name: str,
    metric: DifficultyMetric,
    parts: Sequence[NumberedRows],
    known: Sequence[NumberedRows],
    folder: Path,
) -> np.ndarray:
    """The difficulties of all parts behind each other, each by the metric as fitted to its entry of `known`."""
    pairs = zip(parts, known, strict=True)
    found = [open_or_measure_scores(name, metric, rows, train=train, folder=folder) for rows, train in pairs]
    return np.concatenate(found)


def compute_scores_key(metric: DifficultyMetric, rows: NumberedRows, train: NumberedRows) -> str:
    """64 hex digits of everything that decides the difficulties."""
    kind = type(metric)
    settings: Any = dataclasses.asdict(metric) if dataclasses.is_dataclass(metric) else {}
    parts = [VERSION, kind.__module__, kind.__qualname__, kind.version, settings, rows.key, train.key]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def open_or_measure_scores(
    name: str, metric: DifficultyMetric, rows: NumberedRows, *, train: NumberedRows, folder: Path
) -> np.ndarray:
    """The difficulty of every row, float64 [n], out of `folder`, or measured now and kept there.

    train  the rows that the metric is fitted to

    Of processes that ask at once one measures. A damaged file is measured again with one line in the log; a folder that
    cannot be written costs one line, and measuring at every start.
    """
    key = compute_scores_key(metric, rows, train)
    with contextlib.suppress(FileNotFoundError):
        return _read_or_warn(folder, key, len(rows))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with wait_for_lock(folder / f".{key[:32]}.lock"):
            with contextlib.suppress(FileNotFoundError):
                return _read_or_warn(folder, key, len(rows))
            scores = measure_scores(name, metric, rows, train=train)
            _write_scores(folder, key, scores, {"metric": type(metric).__qualname__})
            return scores
    except OSError as error:
        log.warning("difficulties cannot be kept in %s (%s); they are measured at every start", folder, error.strerror)
        return measure_scores(name, metric, rows, train=train)


def measure_scores(name: str, metric: DifficultyMetric, rows: NumberedRows, *, train: NumberedRows) -> np.ndarray:
    """The difficulty of every row, float64 [n]. Raises ConfigError and DataError; see `prepare_course`."""
    scores, done = np.empty(len(rows)), 0
    with ProgressBar(f"measuring {name}", total=len(rows), pause=2.0) as bar:
        fitted = metric.fit(train)
        for contents in rows.walk_contents():
            count = len(contents.tokens)
            scores[done : done + count] = measure_chunk(name, metric, contents, fitted=fitted, rows=rows)
            done += count
            bar.update(done)
    return scores


def measure_chunk(
    name: str, metric: DifficultyMetric, contents: RowContents, *, fitted: Any, rows: NumberedRows
) -> np.ndarray:
    """The difficulties of some rows; DataError names the first row that the metric cannot measure."""
    values, problem = _try_metric(metric, contents, fitted)
    if problem is None:
        return values
    for i in range(len(contents.tokens)):
        _, own = _try_metric(metric, contents.take([i]), fitted)
        if own is not None:
            where = rows.describe_row(int(contents.ids[i]))
            raise DataError(
                f"the metric {name} ({type(metric).__name__}) {own} on {where}; take another metric, mend that text, "
                f"or leave the metric out with metrics.{name}=null"
            )
    first, last = int(contents.ids[0]), int(contents.ids[-1])
    raise DataError(
        f"the metric {name} ({type(metric).__name__}) {problem} on rows {first} to {last} together, and on none of "
        "them alone; it must measure each row by itself"
    )


def _try_metric(metric: DifficultyMetric, contents: RowContents, fitted: Any) -> tuple[np.ndarray, str | None]:
    """The difficulties, and what is wrong with them or happened, in words."""
    nothing = np.zeros(0)
    try:
        values = np.asarray(metric.measure(contents, fitted), dtype=np.float64)
    except AptlabError:
        raise
    except Exception as error:  # whatever a metric of any package raises: the row must be named
        return nothing, f"failed with {type(error).__name__}: {error}"
    if values.shape != (len(contents.tokens),):
        return nothing, f"gave {list(values.shape)} numbers in place of [{len(contents.tokens)}]"
    bad = np.flatnonzero(~np.isfinite(values))
    return values, f"gave {values[bad[0]]}, which is no finite number," if len(bad) else None


def _read_or_warn(folder: Path, key: str, rows: int) -> np.ndarray:
    """The kept difficulties; FileNotFoundError where there are none, or none that are whole."""
    path = folder / f"{key[:32]}.f8"
    try:
        return read_scores(path, key, rows)
    except AptlabError as error:
        log.warning("%s; measuring again", error)
        raise FileNotFoundError(path) from None


def read_scores(path: Path, key: str, rows: int) -> np.ndarray:
    """Difficulties out of a file, compared with its record; FileNotFoundError, or AptlabError where it is damaged."""
    record: Mapping[str, Any]
    record, _ = read_record(path.with_suffix(".json"), dict)
    data = path.read_bytes()
    whole = record.get("key") == key and record.get("sha256") == hashlib.sha256(data).hexdigest()
    if not whole or len(data) != 8 * rows:
        raise DataError(f"the difficulties in {path} are damaged: they are not what was written")
    return np.frombuffer(data, dtype="<f8").astype(np.float64)


def _write_scores(folder: Path, key: str, scores: np.ndarray, facts: Mapping[str, Any]) -> None:
    """The file, then its record: without a record it counts for nothing."""
    path, data = folder / f"{key[:32]}.f8", scores.astype("<f8").tobytes()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(folder)
    finally:
        temporary.unlink(missing_ok=True)
    record = {"key": key, "rows": len(scores), "sha256": hashlib.sha256(data).hexdigest(), **facts}
    write_json_record(path.with_suffix(".json"), record)
