"""Text files that an installed Python package brings along."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from aptlab.data.sources.base import Document, Note, Source, fingerprint_parts
from aptlab.errors import ConfigError, DataError
from aptlab.limits import OptionName, validate_limits


@dataclass(frozen=True)
class Installed(Source):
    """The files under `folder` of an installed package that end in one of `suffixes`, sorted; needs no network.

    Nothing of the package is imported. A file that is no UTF-8, or empty, is left out. Raises ConfigError for a package
    or folder that is not there, DataError where no file ends so.
    """

    name: ClassVar[str] = "installed"
    package: OptionName
    suffixes: Sequence[str]
    folder: str = ""

    def __post_init__(self) -> None:
        validate_limits(self)
        if not self.suffixes:
            raise ConfigError("suffixes=[] leaves no file; name the ends of files, such as [.h]")
        if ".." in Path(self.folder).parts or Path(self.folder).is_absolute():
            raise ConfigError(
                f"folder={self.folder} leads out of the package; name a folder inside it, such as include"
            )

    def documents(self, note: Note | None = None) -> Iterator[Document]:
        root, found = self._find_root(), False
        for path in self._walk(root):
            try:
                text = path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                if note is not None:
                    note(f"{path} is no UTF-8 and is left out")
                continue
            if text:
                found = True
                yield f"{self.package}/{path.relative_to(root).as_posix()}", text
        if not found:
            raise DataError(f"suffixes={list(self.suffixes)}: no such file with text under {root}; name other suffixes")

    def fingerprint(self) -> str:
        return fingerprint_parts((name, text.encode()) for name, text in self.documents())

    def find_problems(self) -> Iterable[str]:
        try:
            self._find_root()
        except ConfigError as error:
            yield str(error)

    def _find_root(self) -> Path:
        spec = importlib.util.find_spec(self.package)
        places = [] if spec is None else list(spec.submodule_search_locations or ())
        if not places:
            raise ConfigError(f"package={self.package} is not installed here; install it, or name another package")
        root = Path(places[0], self.folder)
        if not root.is_dir():
            raise ConfigError(f"folder={self.folder}: {self.package} has no such folder here; name one that it has")
        return root

    def _walk(self, root: Path) -> Iterator[Path]:
        for folder, folders, names in os.walk(root):
            folders.sort()
            yield from (Path(folder, name) for name in sorted(names) if name.endswith(tuple(self.suffixes)))
