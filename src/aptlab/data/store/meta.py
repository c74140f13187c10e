"""meta.json of a token cache: what it must hold, and the checksums that older caches get when they are first opened."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from aptlab.data.store.pieces import PIECE, PieceSums, count_pieces
from aptlab.data.store.writer import KINDS, SIDES, SUMS
from aptlab.errors import AptlabError, DataError
from aptlab.runs.atomic import sync_folder, write_text
from aptlab.runs.record import find_shape_problem, format_json_record, open_json_record

NAME = "meta.json"
TYPES = ("<u2", "<u4")
CHUNK = 1 << 22  # bytes read at a time; a multiple of PIECE
COUNTS = dict.fromkeys(("documents", "tokens", "bytes", "largest_id"), int)
log = logging.getLogger("aptlab")

Meta = dict[str, Any]


def list_files() -> list[str]:
    """The names of a cache's files, in the order in which their checksums are kept."""
    return [f"{side}.{kind}" for side in SIDES for kind in KINDS]


def write_meta(folder: Path, meta: Meta) -> None:
    """Put meta.json into the folder, with a checksum of its own. Raises AptlabError."""
    write_text(folder / NAME, format_json_record(meta, indent=1), way_out="free some space")


def read_meta(folder: Path) -> Meta:
    """What meta.json says; FileNotFoundError where there is no cache, DataError for anything that is not whole."""
    path = folder / NAME
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if folder.is_dir():
            raise DataError(f"the token cache {folder} has no {NAME}") from None
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"the token cache {folder} has a damaged {NAME} ({_first_line(error)})") from None
    try:
        meta, _ = open_json_record(values, str(path))
    except AptlabError:
        raise DataError(f"the token cache {folder} has a damaged {NAME}: its checksum differs") from None
    problem = find_meta_problem(meta)
    if problem:
        raise DataError(f"the token cache {folder} has a {NAME} of another shape: {problem}")
    return meta


def find_meta_problem(meta: Any) -> str | None:
    """The first key that is missing or has another kind of value than it should, None where all is well."""
    facts = {"size": int, "sha256": str}
    shape: Meta = {"key": str, "dtype": str, "files": dict.fromkeys(list_files(), facts)}
    shape["sides"] = dict.fromkeys(SIDES, COUNTS)
    if isinstance(meta, dict) and "sums" in meta:
        shape["sums"] = {"piece": int, **facts}
    problem = find_shape_problem(meta, shape)
    if problem is None and meta["dtype"] not in TYPES:
        return f"dtype is {meta['dtype']!r:.40}, not one of {', '.join(TYPES)}"
    return problem


def read_sums(folder: Path, meta: Meta) -> dict[str, np.ndarray]:
    """The checksums of each file, uint32 [pieces]; DataError where they are damaged or there are none."""
    about = meta.get("sums")
    if about is None:
        raise DataError(f"the token cache {folder} is of an earlier version, without checksums")
    try:
        data = (folder / SUMS).read_bytes()
    except OSError as error:
        raise DataError(f"the token cache is damaged: {folder / SUMS}: {error.strerror or error}") from None
    if about["piece"] != PIECE or hashlib.sha256(data).hexdigest() != about["sha256"]:
        raise DataError(f"the token cache is damaged: {folder / SUMS} is not what was written")
    sums, at, found = np.frombuffer(data, dtype="<u4"), 0, {}
    for name in list_files():
        count = count_pieces(meta["files"][name]["size"])
        found[name] = sums[at : at + count]
        at += count
    if at != len(sums):
        raise DataError(f"the token cache is damaged: {folder / SUMS} has {len(sums)} checksums in place of {at}")
    return found


def add_missing_sums(folder: Path) -> bool:
    """Give a cache of an earlier version its checksums, once its files have been compared with their sha256.

    False where they cannot be written, which is said in the log: the cache is whole all the same.
    Raises FileNotFoundError where there is no cache, and DataError where it is damaged.
    """
    meta = read_meta(folder)
    if "sums" in meta:
        return True
    begun, sums = time.perf_counter(), PieceSumsFile()
    for name in list_files():
        sums.read(folder / name, meta["files"][name])
    data = sums.data
    try:
        _replace_bytes(folder / SUMS, data)
        about = {"piece": PIECE, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        write_meta(folder, {**meta, "sums": about})
    except (OSError, AptlabError) as error:
        log.warning(
            "the token cache %s is of an earlier version and cannot be given checksums (%s); it is whole, and is "
            "compared with its sha256 at every start",
            folder,
            getattr(error, "strerror", None) or _first_line(error),
        )
        return False
    log.info(
        "the token cache %s is of an earlier version: whole, and given checksums in %.1f s",
        folder,
        time.perf_counter() - begun,
    )
    return True


class PieceSumsFile:
    """The checksums of several files behind each other, found in one pass over each."""

    def __init__(self) -> None:
        self.data = b""

    def read(self, path: Path, facts: dict[str, Any]) -> None:
        """Take the checksums of a file; DataError where its sha256 is not that of `facts`."""
        digest, sums = hashlib.sha256(), PieceSums()
        try:
            with path.open("rb") as file:
                while part := file.read(CHUNK):
                    digest.update(part)
                    sums.update(part)
        except OSError as error:
            raise DataError(f"the token cache is damaged: {path}: {error.strerror or error}") from None
        if digest.hexdigest() != facts["sha256"]:
            raise DataError(f"the token cache is damaged: {path} does not have the sha256 that meta.json says")
        self.data += sums.finish().tobytes()


def _replace_bytes(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            _write_through(file, data)
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _write_through(file: BinaryIO, data: bytes) -> None:
    file.write(data)
    file.flush()
    os.fsync(file.fileno())


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
