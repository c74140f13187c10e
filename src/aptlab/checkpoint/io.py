"""Writing and reading checkpoint files: whole or not at all, verified to the bit, never executed."""

from __future__ import annotations

import math
import os
import pickle
import secrets
import shutil
import time
from pathlib import Path
from typing import Any

import torch

from aptlab.checkpoint.manifest import Manifest, find_checkpoint_problem, make_manifest_path, make_pending_path
from aptlab.checkpoint.plain import check_plain, estimate_checkpoint_size
from aptlab.checkpoint.reserve import NAME, measure_reserve
from aptlab.checkpoint.stream import HashingFile
from aptlab.errors import FULL, AptlabError, CheckpointError, NoSpaceError
from aptlab.faults import inject_fault
from aptlab.runs.atomic import sync_folder, write_text
from aptlab.runs.files import open_file
from aptlab.version import __version__

OLD_ENTRIES = {"MixedData": "TextData"}  # class names of data modules, old and new
FROM_MANIFEST = ("config", "overrides", "choices", "config_hash", "run_dir", "fingerprint")
FROM_MANIFEST += ("metric", "monitor", "mode")


def save_checkpoint(checkpoint: dict[str, Any], path: str | Path, *, spend: bool = False) -> Manifest:
    """Write a checkpoint and its manifest: temporary file in the same folder, fsync, pending manifest, two renames.

    Whenever process or machine die, the place holds the old checkpoint, the new one, or none, never half of one: one
    whose manifest is still pending counts where its content has the sha256 in it. The hash is taken while writing.
    `spend` writes into the space that is held in the folder, see `reserve`. Raises CheckpointError, with all earlier
    files intact, if the disk has less than twice the needed space (NoSpaceError; once where space is held or spent), if
    writing fails, or if the checkpoint holds more than plain containers and tensors.
    """
    path = _local(path)
    check_plain(checkpoint)
    inject_fault("save.begin")
    size = estimate_checkpoint_size(checkpoint)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _check_space(path, size, spend=spend)
        manifest = _write(checkpoint, path, spend=spend)
    except OSError as error:
        raise _cannot(path, error, size) from error
    except CheckpointError:
        raise
    except AptlabError as error:
        raise _cannot(path, error.__cause__ or error, size) from error
    inject_fault("save.after_manifest")
    return manifest


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint into memory of the CPU, after its sha256 was compared; no code in the file can run.

    Raises CheckpointError that names the file when it is missing, damaged, has no manifest, or is a URL.
    """
    path = _local(path)
    problem = find_checkpoint_problem(path)
    if problem:
        raise CheckpointError(f"{problem}; use another checkpoint of the run")
    try:
        return rename_old_entries(torch.load(path, map_location="cpu", weights_only=True))
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(f"{path} cannot be read with weights_only=True: {reason}") from None


def rename_old_entries(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """The checkpoint with the names of today, in place: Lightning finds the state of the data under its class."""
    for old, new in OLD_ENTRIES.items():
        if old in checkpoint:
            checkpoint.setdefault(new, checkpoint.pop(old))
    return checkpoint


def _local(path: str | Path) -> Path:
    if "://" in str(path):
        raise CheckpointError(f"{path} is a URL; download it together with its manifest and give the file's name")
    return Path(path)


def _check_space(path: Path, size: int, *, spend: bool) -> None:
    """Twice the size is wanted, of which one may be held already; where that is spent, writing itself tells."""
    free, held = shutil.disk_usage(path.parent).free, measure_reserve(path.parent)
    missing = max(2 * size - held, size) - free
    if missing > 0 and not (spend and held):
        raise NoSpaceError(
            f"not enough space for {path}: about {_mb(size)} MB to write, twice that is wanted, {_mb(free)} MB are "
            "free; free some space or choose another run_dir",
            missing,
        )


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f}"


def _cannot(path: Path, error: BaseException, size: int) -> CheckpointError:
    reason = error.strerror or str(error) if isinstance(error, OSError) else str(error)
    message = (
        f"cannot write {path}: {reason}; earlier checkpoints are intact; free some space or choose another run_dir"
    )
    full = isinstance(error, OSError) and error.errno in FULL
    return NoSpaceError(message, size) if full else CheckpointError(message)


def _write(checkpoint: dict[str, Any], path: Path, *, spend: bool) -> Manifest:
    """The file and its manifest. An older manifest of the same name goes first, it would not fit.

    Space that is held is spent by writing into its very blocks, so that nobody else can take it in between.
    """
    temporary, pending = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp"), make_pending_path(path)
    try:
        if spend and measure_reserve(path.parent):
            os.replace(path.with_name(NAME), temporary)
        else:
            temporary.open("xb").close()
        with open_file(temporary, "r+b", buffering=0) as raw:
            file = HashingFile(raw)  # type: ignore[arg-type]
            try:
                _serialize(checkpoint, file)
                inject_fault("save.after_write")
                digest = file.finish()
            finally:
                file.close()
        inject_fault("save.after_fsync")
        manifest = make_manifest(checkpoint, digest, file.bytes)
        write_text(pending, manifest.text())
        make_manifest_path(path).unlink(missing_ok=True)
        os.replace(temporary, path)
        inject_fault("save.after_rename")
        os.replace(pending, make_manifest_path(path))
        sync_folder(path.parent)
    finally:
        if temporary.exists():  # nothing was renamed
            pending.unlink(missing_ok=True)
        temporary.unlink(missing_ok=True)
    return manifest


def _serialize(checkpoint: dict[str, Any], file: HashingFile) -> None:
    """torch.save reports a full disk as a RuntimeError of its zip writer; give the OSError behind it."""
    try:
        torch.save(checkpoint, file)  # type: ignore[arg-type]
    except RuntimeError as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, OSError):
            cause = cause.__context__
        raise (cause or OSError(0, str(error).splitlines()[0])) from error


def make_manifest(checkpoint: dict[str, Any], digest: str, size: int) -> Manifest:
    """The manifest of a checkpoint whose file has this sha256 and so many bytes."""
    entry = checkpoint.get("aptlab") or {}
    facts = {name: entry[name] for name in FROM_MANIFEST if name in entry}
    metric = facts.get("metric")
    facts["metric"] = float(metric) if metric is not None and math.isfinite(metric) else None
    step = int(entry.get("step", checkpoint.get("global_step", 0)))
    return Manifest(sha256=digest, bytes=size, step=step, time=time.time(), version=__version__, **facts)
