"""Documents that count."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from aptlab.data.sources import Document, Note, Source, fingerprint_parts
from aptlab.limits import PositiveInt, validate_limits


@dataclass(frozen=True, kw_only=True)
class Numbers(Source):
    """`documents` texts; text n counts from n to n + `length`."""

    name: ClassVar[str] = "numbers"
    count: PositiveInt = 40
    length: PositiveInt = 60

    def __post_init__(self) -> None:
        validate_limits(self)

    def documents(self, note: Note | None = None) -> Iterator[Document]:
        """The texts in order."""
        for first in range(self.count):
            yield f"{first}", " ".join(str(first + number) for number in range(self.length))

    def fingerprint(self) -> str:
        """By the texts themselves."""
        return fingerprint_parts((name, text.encode()) for name, text in self.documents())
