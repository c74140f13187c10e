"""Several sources behind each other, as one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from aptlab.data.sources.base import Document, Note, Source, fingerprint_parts
from aptlab.errors import ConfigError


@dataclass(frozen=True)
class Joined(Source):
    """The documents of all `sources`, in their order; names begin with the source's key."""

    name: ClassVar[str] = "joined"
    sources: Mapping[str, Source]

    def __post_init__(self) -> None:
        if not self.sources:
            raise ConfigError("sources={} leaves no text; name at least one")

    def documents(self, note: Note | None = None) -> Iterator[Document]:
        for key, source in self.sources.items():
            yield from ((f"{key}/{name}", text) for name, text in source.documents(note))

    def fingerprint(self) -> str:
        return fingerprint_parts((key, source.fingerprint().encode()) for key, source in self.sources.items())
