"""Which checkpoint is meant: the newest or best valid one at a place. Order is by run name and step. No torch."""

from __future__ import annotations

import logging
import math
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from aptlab.checkpoint.manifest import (
    find_checkpoint_problem,
    is_temporary,
    make_manifest_path,
    parse_checkpoint_step,
    read_manifest,
)
from aptlab.errors import CheckpointError, suggest_option

log = logging.getLogger("aptlab")
FOLDER = "checkpoints"
WHICH = ("last", "best")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_DEPTH = 6  # outputs / job / date / run / checkpoints, and a sweep's job folder
_SKIP = {"wandb", "__pycache__"}


def find_checkpoint(where: str | Path, which: str = "last", *, strict: bool = False) -> Path:
    """The newest (`last`) or best (`best`: by the metric in the manifest) valid checkpoint at a place.

    `where` is a checkpoint file, a run folder, its checkpoints folder, or a folder above run folders; of several runs
    the newest that holds a valid checkpoint is taken, by date, time and name. Damaged files are passed over with a
    warning each; `strict` raises for the first one instead, and a file named outright is never replaced by another.
    Raises CheckpointError.
    """
    if which not in WHICH:
        raise CheckpointError(f"{which}: no such kind of checkpoint{suggest_option(which, WHICH)}")
    place = Path(where).expanduser()
    if place.is_file():
        return _named(place)
    if not place.is_dir():
        near = "; it ends in .ckpt" if place.with_suffix(".ckpt").is_file() else ""
        raise CheckpointError(f"{place}: no such file or folder{near}; name a run folder or a .ckpt file")
    passed: list[str] = []
    for folder in list_checkpoint_folders(place):
        found = _pick(folder, which, strict, passed)
        if found:
            return found
    seen = f"; damaged: {'; '.join(passed[:3])}" if passed else ""
    raise CheckpointError(f"no valid checkpoint in {place}{seen}; name another folder, or train from the start")


def find_run_folder(checkpoint: str | Path) -> Path:
    """The run folder that a checkpoint lies in, else the checkpoint's own folder."""
    folder = Path(checkpoint).parent
    return folder.parent if folder.name == FOLDER else folder


def list_checkpoints(folder: str | Path) -> list[Path]:
    """Checkpoint files of a folder that bear our names, oldest step first, whether valid or not."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    files = [
        Path(folder) / name for name in names if name.endswith(".ckpt") and parse_checkpoint_step(name) is not None
    ]
    return sorted(files, key=lambda path: parse_checkpoint_step(path) or 0)


def list_checkpoint_folders(place: Path) -> Iterator[Path]:
    """Folders that hold checkpoint files, newest run first."""
    if list_checkpoints(place):
        yield place
        return
    if list_checkpoints(place / FOLDER):
        yield place / FOLDER
        return
    found = [
        folder
        for folder in (Path(top) for top, _, _ in _walk(place))
        if folder.name == FOLDER and list_checkpoints(folder)
    ]
    yield from sorted(found, key=_age, reverse=True)


def remove_partial_saves(folder: str | Path) -> list[str]:
    """Remove what a killed save left in a checkpoints folder; returns the names. Only files named by us are touched."""
    removed = []
    folder = Path(folder)
    for name in sorted(os.listdir(folder)) if folder.is_dir() else []:
        path = folder / name
        half = (
            parse_checkpoint_step(name) is not None
            and not path.with_suffix(".json" if name.endswith("t") else ".ckpt").exists()
        )
        if is_temporary(name) or half:
            path.unlink(missing_ok=True)
            removed.append(name)
    return removed


def delete_checkpoint(path: str | Path) -> None:
    """Remove a checkpoint: first its manifest, so that no half of it ever counts."""
    make_manifest_path(path).unlink(missing_ok=True)
    Path(path).unlink(missing_ok=True)


def rank_checkpoints(files: Iterable[Path]) -> list[Path]:
    """The files whose manifests hold a finite metric, best first; the newer one of equals."""
    rated = []
    for path in files:
        try:
            manifest = read_manifest(path)
        except CheckpointError:
            continue
        if manifest.metric is not None and math.isfinite(manifest.metric):
            sign = 1 if manifest.mode == "min" else -1
            rated.append((sign * manifest.metric, -manifest.step, path))
    return [path for _, _, path in sorted(rated)]


def _pick(folder: Path, which: str, strict: bool, passed: list[str]) -> Path | None:
    files = list_checkpoints(folder)
    for path in reversed(files) if which == "last" else rank_checkpoints(files):
        problem = find_checkpoint_problem(path)
        if problem is None:
            return path
        if strict:
            raise CheckpointError(f"{problem}; remove it to continue from the one before")
        log.warning("passed over a checkpoint: %s", problem)
        passed.append(problem)
    return None


def _named(path: Path) -> Path:
    problem = find_checkpoint_problem(path)
    if problem is None:
        return path
    others = [
        other
        for other in reversed(list_checkpoints(path.parent))
        if other != path and find_checkpoint_problem(other) is None
    ]
    way = f"use {others[0]}" if others else "there is no valid one beside it"
    raise CheckpointError(f"{problem}; {way}")


def _walk(place: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    depth = len(place.parts)
    for top, inner, files in os.walk(place):
        if len(Path(top).parts) - depth >= _DEPTH or Path(top).name == FOLDER:
            inner.clear()
        inner[:] = [name for name in inner if name not in _SKIP and not name.startswith(".")]
        yield top, inner, files


def _age(folder: Path) -> tuple[list[tuple[int, int, str]], str]:
    """Sort key of a run: its path from the date on, numbers as numbers; runs without a date are the oldest."""
    parts = folder.absolute().parent.parts
    dated = [i for i, part in enumerate(parts) if _DATE.fullmatch(part)]
    words = parts[dated[0] :] if dated else ()
    key = [(1, int(word), "") if word.isdigit() else (0, 0, word) for word in words]
    return key, str(folder)
