"""A name for a text that its tokens do not change: numbers per byte of one text compare across tokenizers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from aptlab.runs.atomic import write_text

VERSION = 1


class TextDigest:
    """sha256 over the sizes and bytes of documents in their order."""

    def __init__(self) -> None:
        self._total = hashlib.sha256()

    def add(self, texts: Iterable[str]) -> TextDigest:
        """Go on with more documents."""
        for text in texts:
            data = text.encode("utf-8", "surrogatepass")
            self._total.update(f"{len(data)}\n".encode())
            self._total.update(data)
        return self

    def name(self) -> str:
        """64 hex digits."""
        return self._total.hexdigest()


def open_or_make_text_digest(texts: Iterable[str], *, folder: Path, key: str) -> str:
    """The digest of the text that `key` names, read from `folder`, or found now and kept there."""
    path = folder / f"{hashlib.sha256(f'{VERSION}:{key}'.encode()).hexdigest()[:32]}.text.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["text"]
        if isinstance(found, str) and len(found) == 64:
            return found
    except (OSError, ValueError, TypeError, KeyError):
        pass  # not there, or not whole: it is found again
    found = TextDigest().add(texts).name()
    folder.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps({"text": found}))
    return found
