"""The text that comes with every Python."""

from __future__ import annotations

import os
import sysconfig
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from aptlab.data.sources.base import Document, Note, Source, fingerprint_parts
from aptlab.errors import ConfigError, DataError, suggest_option


@dataclass(frozen=True)
class Stdlib(Source):
    """The English prose (`pydoc_data.topics`) and the source code of the running Python.

    Every Python has it, so it needs no network; its content depends on the Python version.
    Left out: tests, idlelib, turtledemo, lib2to3, bundled wheels, installed packages, the tables of encodings, and
    files generated for this machine. `parts` chooses among prose and code. Raises DataError when the installation
    has none.
    """

    name: ClassVar[str] = "stdlib"
    parts: Sequence[str] = ("prose", "code")

    SKIPPED: ClassVar[frozenset[str]] = frozenset(
        {"site-packages", "dist-packages", "test", "tests", "idlelib", "turtledemo", "lib2to3", "ensurepip"}
        | {"__pycache__", "pydoc_data", "encodings"}
    )

    def __post_init__(self) -> None:
        for part in self.parts:
            if part not in ("prose", "code"):
                raise ConfigError(f"parts={part}: no such part{suggest_option(part, ['prose', 'code'])}")
        if not self.parts:
            raise ConfigError("parts=[] leaves no text; allowed: prose, code")

    def documents(self, note: Note | None = None) -> Iterator[Document]:
        del note
        if "prose" in self.parts:
            yield from self._prose()
        if "code" in self.parts:
            yield from self._code()

    def fingerprint(self) -> str:
        return fingerprint_parts((name, text.encode()) for name, text in self.documents())

    def _prose(self) -> Iterator[Document]:
        try:
            from pydoc_data.topics import topics
        except ImportError as error:
            raise DataError("parts=prose: this Python has no pydoc_data; use parts=[code]") from error
        for topic in sorted(topics):
            if topics[topic]:
                yield f"prose/{topic}", topics[topic]

    def _code(self) -> Iterator[Document]:
        found, root = False, self._root()
        for path in self._files(root):
            with tokenize.open(path) as file:
                text = file.read()
            if text:
                found = True
                yield f"code/{path.relative_to(root).as_posix()}", text
        if not found:
            raise DataError(f"parts=code: no .py file under {root}; use parts=[prose]")

    @staticmethod
    def _root() -> Path:
        return Path(sysconfig.get_paths()["stdlib"])

    def _files(self, root: Path) -> Iterator[Path]:
        """All wanted .py files; folders and names are sorted, so the order is the same everywhere."""
        for folder, folders, names in os.walk(root):
            folders[:] = sorted(n for n in folders if n not in self.SKIPPED and not n.startswith("config-"))
            for name in sorted(names):
                if name.endswith(".py") and not name.startswith("_sysconfigdata"):
                    yield Path(folder, name)
