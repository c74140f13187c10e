"""Checkpoints without a manifest: what was saved whole is set aside under another name, and never deleted. No torch."""

from __future__ import annotations

import logging
import os
import zipfile
from pathlib import Path

log = logging.getLogger("aptlab")
SUFFIX = ".unverified"


def is_whole_archive(path: str | Path) -> bool:
    """Whether a file is a complete archive of torch.save: every entry is there and has its own CRC-32.

    torch.save stores entries as they are, so a packed one is not ours, and is left unread and counted as whole: better
    a file too many is kept than one too few. No code in the file can run.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                return True
            return archive.testzip() is None
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError):
        return False


def set_aside(path: Path) -> Path:
    """Give a whole checkpoint without a manifest a name that nothing counts, and say so; returns the new path."""
    aside, number = path.with_name(path.name + SUFFIX), 2
    while aside.exists():
        aside, number = path.with_name(f"{path.name}{SUFFIX}-{number}"), number + 1
    os.replace(path, aside)
    log.warning(
        "%s has no manifest, but is whole: kept as %s and not used; docs/resume.md says how to take it in again",
        path,
        aside.name,
    )
    return aside
