"""Tokens on disk: written once per (documents, tokenizer, split), then memory-mapped.

A cache is a folder `tokens/<key>` with, for each side of the split, `<side>.tokens` (uint16 or uint32),
`<side>.offsets` (int64, start of each document and the end of the last) and `<side>.sizes` (int64, UTF-8 bytes of
each document), `pieces.crc32` with a checksum of every 16 KiB of them, and `meta.json`, which records the size and
sha256 of each file. It is built in a hidden folder beside the final one and renamed at the end, so a name without a dot
is always complete.

How it is verified (`verify`):

auto  files are compared with their checksums when they are opened, the small ones first, up to WHOLE bytes; each piece
      of a larger one before any of it is used for the first time. So nothing that is damaged is ever trained on or
      validated on, and opening 1 GB takes no longer than opening WHOLE bytes
full  every byte is compared with the sha256 of its file when the cache is opened, by one process of each host
size  the files have the size that they should have, and their content is trusted
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aptlab.data.sources import Source
from aptlab.data.store.meta import Meta, add_missing_sums, list_files, read_meta, read_sums, write_meta
from aptlab.data.store.pieces import MARK, CheckedTokens, count_pieces, find_damaged_piece
from aptlab.data.store.split import Division
from aptlab.data.store.writer import SIDES, write_sides
from aptlab.data.tokenizers import Tokenizer
from aptlab.errors import ConfigError, DataError, suggest_option
from aptlab.runs.atomic import sync_folder
from aptlab.runs.lock import wait_for_lock
from aptlab.runs.ranks import get_local_rank

VERSION = 1
WAYS = ("auto", "full", "size")
WHOLE = 1 << 26  # bytes that are verified when a cache is opened: 64 MiB, 0.03 s
Progress = Callable[[str, int], None]
log = logging.getLogger("aptlab")


@dataclass(frozen=True)
class TokenSide:
    """One side of the split: tokens [N], mapped into memory and verified as they are read, offsets [D+1], sizes [D]."""

    tokens: np.ndarray | CheckedTokens
    offsets: np.ndarray
    sizes: np.ndarray

    @property
    def bytes_per_token(self) -> float:
        """UTF-8 bytes of the text per token, eos tokens counted as tokens (so they cost bits per byte)."""
        return float(self.sizes.sum()) / len(self.tokens)


@dataclass(frozen=True)
class TokenStore:
    """An opened cache: `train`, `val`, and what `meta.json` says."""

    folder: Path
    meta: dict[str, Any]
    train: TokenSide
    val: TokenSide

    @property
    def key(self) -> str:
        """Identity of the content: source, tokenizer, split and format."""
        return self.meta["key"]


def compute_cache_key(source_fingerprint: str, tokenizer: Tokenizer, split: Division) -> str:
    """sha256 over everything that decides the content of a cache, 64 hex digits."""
    parts = [VERSION, source_fingerprint, tokenizer.key(), split.key()]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def find_cache_root(folder: str | None = None) -> Path:
    """A writable cache folder: `folder`, $APTLAB_CACHE, the user's cache folder, else a temporary one.

    A folder asked for by name that cannot be written is a DataError; the user's cache folder falls back to the
    temporary folder with one line in the log.
    """
    root = folder or os.environ.get("APTLAB_CACHE")
    if root:
        name = "cache" if folder else "APTLAB_CACHE"
        path = Path(root).expanduser()
        problem = _unwritable(path)
        if problem:
            raise DataError(f"{name}={root} cannot be written: {problem}; name a writable folder")
        return path
    home = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "aptlab"
    problem = _unwritable(home)
    if not problem:
        return home
    path = Path(tempfile.gettempdir()) / f"aptlab-cache-{os.getuid() if os.name == 'posix' else 'user'}"
    if _unwritable(path) or not _is_mine(path):
        path = Path(tempfile.mkdtemp(prefix="aptlab-cache-"))
    log.warning("%s cannot be written (%s); token files go to %s", home, problem, path)
    return path


def find_store_folder(root: Path, key: str) -> Path:
    """Where the cache of `key` is, or will be."""
    return root / "tokens" / key[:32]


def has_store(root: Path, key: str) -> bool:
    """Whether a cache of `key` was built; not whether it is whole."""
    return find_store_folder(root, key).is_dir()


def check_way(verify: str) -> None:
    """ConfigError unless `verify` is a way of verifying a cache."""
    if verify not in WAYS:
        raise ConfigError(f"verify={verify}: no such way to verify a token cache{suggest_option(verify, WAYS)}")


def open_or_build_store(
    source: Source,
    tokenizer: Tokenizer,
    split: Division,
    *,
    root: Path,
    key: str,
    verify: str = "auto",
    progress: Progress | None = None,
) -> TokenStore:
    """The cache of `key`, built now unless a complete one is there.

    Two processes that build at once wait for each other, and the second uses the first one's work. A damaged
    cache is rebuilt with one line in the log; one of an earlier version is given its checksums. Of the processes of one
    host the first does the work of `verify=full`, the others verify what they read.
    """
    check_way(verify)
    verify = "auto" if verify == "full" and get_local_rank() else verify
    folder = find_store_folder(root, key)
    with contextlib.suppress(FileNotFoundError, DataError):
        return open_store(folder, vocab_size=tokenizer.vocab_size, verify=verify)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with wait_for_lock(folder.parent / f".{folder.name}.lock") as alone:
        try:
            compared = not add_missing_sums(folder)  # every byte of it, a moment ago
            return open_store(folder, vocab_size=tokenizer.vocab_size, verify="size" if compared else verify)
        except FileNotFoundError:
            pass
        except DataError as error:
            log.warning("%s; building it again", error)
            _remove(folder)
        if alone:
            for left in folder.parent.glob(f".{folder.name}.build-*"):
                shutil.rmtree(left, ignore_errors=True)
        _build(folder, source, tokenizer, split, key=key, progress=progress)
        return open_store(folder, vocab_size=tokenizer.vocab_size, verify="size" if verify == "full" else verify)


def open_store(folder: Path, *, vocab_size: int | None = None, verify: str = "auto") -> TokenStore:
    """Map a complete cache and verify it as `verify` says.

    Raises FileNotFoundError when there is none, DataError when it is damaged, holds an id >= `vocab_size`, or is of an
    earlier version, without checksums.
    """
    meta = read_meta(folder)
    if (folder / MARK).exists():
        raise DataError(f"the token cache {folder} was found damaged while it was read")
    sizes = {name: meta["files"][name]["size"] for name in list_files()}
    for name, size in sizes.items():
        _check_size(folder / name, size)
    largest = max(meta["sides"][side]["largest_id"] for side in SIDES)
    if vocab_size is not None and largest >= vocab_size:
        raise DataError(f"the token cache {folder} holds token {largest}, but the vocabulary has {vocab_size}")
    if verify == "full":
        _check_hashes(folder, meta)
    if verify != "auto":
        train, val = (_map_unchecked(folder, side, meta["dtype"]) for side in SIDES)
        return TokenStore(folder, meta, train, val)
    sums = read_sums(folder, meta)
    train, val = (_map_checked(folder, side, meta["dtype"], sums) for side in SIDES)
    left = WHOLE
    for side in sorted((train, val), key=lambda side: len(side.tokens)):
        assert isinstance(side.tokens, CheckedTokens)
        left -= len(side.tokens) * side.tokens.dtype.itemsize
        if left < 0:
            break
        damage = side.tokens.find_damage()
        if damage is not None:
            raise DataError(damage)
    return TokenStore(folder, meta, train, val)


def _check_size(path: Path, expected: int) -> None:
    size = path.stat().st_size if path.is_file() else None
    if size != expected:
        found = "is missing" if size is None else f"has {size} bytes"
        raise DataError(f"the token cache is damaged: {path} {found}, meta.json says {expected}")


def _check_hashes(folder: Path, meta: Meta) -> None:
    for name in list_files():
        with (folder / name).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != meta["files"][name]["sha256"]:
            raise DataError(f"the token cache is damaged: {folder / name} does not have the sha256 that meta.json says")


def _map_checked(folder: Path, side: str, dtype: str, sums: dict[str, np.ndarray]) -> TokenSide:
    """One side whose tokens are verified as they are read; its offsets and sizes are read whole, and verified here."""
    numbers = {name: np.fromfile(folder / name, dtype="<i8") for name in (f"{side}.offsets", f"{side}.sizes")}
    for name, values in numbers.items():
        data = memoryview(values).cast("B")
        if find_damaged_piece(data, sums[name], range(count_pieces(len(data)))) is not None:
            raise DataError(f"the token cache is damaged: {folder / name} is not what was written")
    tokens = CheckedTokens(folder / f"{side}.tokens", dtype, sums[f"{side}.tokens"])
    return TokenSide(tokens, *numbers.values())


def _map_unchecked(folder: Path, side: str, dtype: str) -> TokenSide:
    return TokenSide(
        tokens=np.asarray(np.memmap(folder / f"{side}.tokens", dtype=dtype, mode="r")),
        offsets=np.fromfile(folder / f"{side}.offsets", dtype="<i8"),
        sizes=np.fromfile(folder / f"{side}.sizes", dtype="<i8"),
    )


def _build(
    folder: Path, source: Source, tokenizer: Tokenizer, split: Division, *, key: str, progress: Progress | None
) -> None:
    temporary = folder.with_name(f".{folder.name}.build-{uuid.uuid4().hex[:8]}")
    temporary.mkdir()
    try:
        facts = write_sides(temporary, source, tokenizer, split, progress=progress)
        meta = {"version": VERSION, "key": key, "source": source.name, "vocab_size": tokenizer.vocab_size, **facts}
        write_meta(temporary, meta)
        try:
            temporary.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
        sync_folder(folder.parent)
    except OSError as error:
        raise DataError(f"the token cache {folder} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _remove(folder: Path) -> None:
    """Take a damaged cache out of the way; the rename keeps its name from being seen half deleted."""
    aside = folder.with_name(f".{folder.name}.build-{uuid.uuid4().hex[:8]}")
    with contextlib.suppress(OSError):
        folder.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


def _unwritable(path: Path) -> str | None:
    """Why files cannot be made in `path` (created if need be), or None."""
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=path):
            return None
    except OSError as error:
        return error.strerror or str(error)


def _is_mine(path: Path) -> bool:
    return os.name != "posix" or path.lstat().st_uid == os.getuid()
