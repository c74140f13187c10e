"""Which checkpoint is meant: the newest or best valid one at a place. Order is by run name and step. No torch.

`last`  the newest checkpoint of the newest run
`best`  of all runs that are validated as the newest one is, the checkpoint with the best metric
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path

from aptlab.checkpoint.aside import SUFFIX, is_whole_archive, set_aside
from aptlab.checkpoint.manifest import (
    PENDING,
    find_checkpoint_problem,
    hash_file,
    is_temporary,
    is_valid,
    make_manifest_path,
    make_pending_path,
    parse_checkpoint_step,
    read_manifest,
)
from aptlab.checkpoint.measure import Rated, rate_checkpoints
from aptlab.errors import CheckpointError, suggest_option
from aptlab.runs.files import require_inner_folder

log = logging.getLogger("aptlab")
FOLDER = "checkpoints"
WHICH = ("last", "best")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_DEPTH = 6  # outputs / job / date / run / checkpoints, and a sweep's job folder
_SKIP = {"wandb", "__pycache__"}


def choose_checkpoint(ckpt: str | Path, *, root: str | Path = "outputs", job: str | None = None) -> Path:
    """The file that `ckpt=` means, in every command and function alike.

    ckpt  `last` or `best` of the runs under `root`, a run folder (its newest), a folder of runs, or a checkpoint
    root  where runs are
    job   the only job that `last` and `best` look at; None: all of them

    Which one was taken is logged. Raises CheckpointError.
    """
    if str(ckpt) not in WHICH:
        return find_checkpoint(ckpt)
    place = Path(root).expanduser() / (job or "")
    if not place.is_dir():
        raise CheckpointError(
            f"{place}: no such file or folder, so ckpt={ckpt} finds no run; name a run folder or a .ckpt file, or "
            "paths.root=<folder>"
        )
    path = find_checkpoint(place, str(ckpt))
    log.info("ckpt=%s is %s", ckpt, path)
    return path


def find_checkpoint(where: str | Path, which: str = "last", *, strict: bool = False) -> Path:
    """The newest (`last`) or best (`best`: by the metric in the manifest) valid checkpoint at a place.

    `where` is a checkpoint file, a run folder, its checkpoints folder, or a folder above run folders. Of several runs
    `last` is of the newest that holds a valid checkpoint: by date, time and name of its folder, or by the time of its
    newest checkpoint where the name has no date. `best` compares all runs that are validated by the same metric on the
    same text as the newest one; the others are named in the log. Damaged files are passed over with a warning each;
    `strict` raises for the first one instead, and a file named outright is never replaced by another.
    Raises CheckpointError.
    """
    if which not in WHICH:
        raise CheckpointError(f"{which}: no such kind of checkpoint{suggest_option(which, WHICH)}")
    place = Path(where).expanduser()
    if place.is_file():
        return _named(
            place if place.parent.name == FOLDER else place.resolve()
        )  # a link of the user's own may be named
    if not place.is_dir():
        near = "; it ends in .ckpt" if place.with_suffix(".ckpt").is_file() else ""
        raise CheckpointError(f"{place}: no such file or folder{near}; name a run folder or a .ckpt file")
    passed: list[str] = []
    folders = list_checkpoint_folders(place)
    files = rank_checkpoints(folders) if which == "best" else _list_newest_first(folders)
    for path in files:
        problem = find_checkpoint_problem(path)
        if problem is None:
            return path
        if strict:
            raise CheckpointError(f"{problem}; remove it to continue from the one before")
        log.warning("passed over a checkpoint: %s", problem)
        passed.append(problem)
    seen = f"; damaged: {'; '.join(passed[:3])}" if passed else ""
    rated = " with a metric" if which == "best" and not passed else ""
    raise CheckpointError(f"no valid checkpoint{rated} in {place}{seen}; name another folder, or train from the start")


def find_run_folder(checkpoint: str | Path) -> Path:
    """The run folder that a checkpoint lies in, else the checkpoint's own folder."""
    folder = Path(checkpoint).parent
    return folder.parent if folder.name == FOLDER else folder


def is_imported(folder: Path) -> bool:
    """Whether a run folder holds a model that `aptlab import` wrote, and no training: step 0, of no run."""
    try:
        manifests = [read_manifest(path) for path in list_checkpoints(folder / FOLDER)]
    except CheckpointError:
        return False
    return bool(manifests) and all(one.step == 0 and not one.run_dir for one in manifests)


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
    if list_checkpoints(require_inner_folder(place / FOLDER)):
        yield place / FOLDER
        return
    found = [
        folder
        for folder in (Path(top) for top, _, _ in _walk(place))
        if folder.name == FOLDER and list_checkpoints(folder)
    ]
    yield from sorted(found, key=_age, reverse=True)


def remove_partial_saves(folder: str | Path) -> list[str]:
    """Remove what a killed save left in a checkpoints folder; returns the names. Only files named by us are touched.

    A manifest that was still pending gets its name where the content of its checkpoint has its sha256. A checkpoint
    without any (it was lost) that is whole is set aside as `….ckpt.unverified`, with a line in the log; it goes once
    the same bytes are there again with a manifest.
    """
    folder = Path(folder)
    removed = _end_pending(folder)
    for name in sorted(os.listdir(folder)) if folder.is_dir() else []:
        path = folder / name
        half = (
            parse_checkpoint_step(name) is not None
            and not path.with_suffix(".json" if name.endswith("t") else ".ckpt").exists()
        )
        if half and name.endswith(".ckpt") and is_whole_archive(path):
            set_aside(path)
        elif is_temporary(name) or half or _is_saved_again(path):
            path.unlink(missing_ok=True)
            removed.append(name)
    return removed


def _end_pending(folder: Path) -> list[str]:
    """Name the pending manifests of checkpoints that are whole, and remove the others; the names of those."""
    removed = []
    for pending in sorted(folder.glob(f".*{PENDING}")):
        path = pending.with_name(pending.name[1 : -len(PENDING)]).with_suffix(".ckpt")
        if parse_checkpoint_step(path) is None or pending.is_symlink():
            continue
        if not make_manifest_path(path).exists() and is_valid(path):
            os.replace(pending, make_manifest_path(path))
            log.info("%s was saved whole just before the run was killed, and counts", path)
        else:
            pending.unlink(missing_ok=True)
            removed.append(pending.name)
    return removed


def _is_saved_again(path: Path) -> bool:
    """Whether a file that was set aside is there again, to the bit, with a manifest."""
    name, ending, _ = path.name.partition(SUFFIX)
    home = path.with_name(name)
    if not ending or parse_checkpoint_step(name) is None or not home.is_file():
        return False
    try:
        return read_manifest(home).sha256 == hash_file(path) == hash_file(home)
    except (CheckpointError, OSError):
        return False


def delete_checkpoint(path: str | Path) -> None:
    """Remove a checkpoint: first its manifest, so that no half of it ever counts."""
    if (pending := make_pending_path(path)).exists():
        pending.unlink()
    make_manifest_path(path).unlink(missing_ok=True)
    Path(path).unlink(missing_ok=True)


def rank_checkpoints(folders: Iterable[Path]) -> list[Path]:
    """The checkpoints of several folders that have a metric, best first; of equals that of the newer run and step.

    folders  newest run first; what the newest one with a metric measures is what is compared
    """
    rated: list[Rated] = []
    measure, others = None, []
    for folder in folders:
        found = rate_checkpoints(list_checkpoints(folder))
        if measure is None and found:
            measure = max(found, key=lambda name: max(one.manifest.step for one in found[name]))
        rated += found.get(measure, []) if measure is not None else []
        if found and measure not in found:
            others.append(str(folder.parent if folder.name == FOLDER else folder))
    if others:
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        log.info("not compared, for they are validated in another way: %s%s", ", ".join(others[:3]), more)
    return [one.path for one in sorted(rated, key=lambda one: one.value)]  # a stable sort: newer ones stay in front


def _list_newest_first(folders: Iterable[Path]) -> Iterator[Path]:
    """The checkpoints of all folders, which come newest run first."""
    for folder in folders:
        yield from reversed(list_checkpoints(folder))


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
    """Sort key of a run: its path from the date on, numbers as numbers; without a date, when it was saved last."""
    parts = folder.absolute().parent.parts
    dated = [i for i, part in enumerate(parts) if _DATE.fullmatch(part)]
    words = parts[dated[0] :] if dated else _read_save_time(folder)
    key = [(1, int(word), "") if word.isdigit() else (0, 0, word) for word in words]
    return key, str(folder)


def _read_save_time(folder: Path) -> tuple[str, ...]:
    """Date and time at which the newest checkpoint of a folder was saved, as the name of a run has them."""
    for path in reversed(list_checkpoints(folder)):
        try:
            saved = datetime.fromtimestamp(read_manifest(path).time)
        except (CheckpointError, OverflowError, OSError):
            continue
        return f"{saved:%Y-%m-%d}", f"{saved:%H%M%S}-"
    return ()
