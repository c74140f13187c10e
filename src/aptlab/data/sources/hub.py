"""Data sets of the Hugging Face Hub."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from aptlab.data.sources.base import Document, Note, Source, fingerprint_parts
from aptlab.data.sources.readers import find_text_problem
from aptlab.errors import DataError, suggest_option
from aptlab.limits import PositiveInt, validate_limits


@dataclass(frozen=True)
class Hub(Source):
    """A data set of the Hugging Face Hub, streamed by the `datasets` library; needs a network.

    `limit` keeps the first documents only. The fingerprint covers these settings, not the content: pin
    `revision` (a commit) when the data set may change. Raises DataError when it cannot be read.
    """

    name: ClassVar[str] = "hub"
    repo: str
    config: str | None = None
    split: str = "train"
    field: str = "text"
    limit: PositiveInt | None = 10_000
    revision: str | None = None

    def __post_init__(self) -> None:
        validate_limits(self)

    def documents(self, note: Note | None = None) -> Iterator[Document]:
        empty = 0
        for number, row in enumerate(self._rows(), start=1):
            where = f"repo={self.repo}, row {number}"
            if self.field not in row:
                raise DataError(f"{where} has no field {self.field!r}{suggest_option(self.field, row)}")
            problem = find_text_problem(row[self.field], self.field)
            if problem and row[self.field] != "":
                raise DataError(f"{where}: {problem}")
            empty += bool(problem)
            if not problem:
                yield f"{self.split}:{number}", row[self.field]
            if number == self.limit:
                break
        if empty and note:
            note(f"left out {empty} empty rows of {self.repo}")

    def fingerprint(self) -> str:
        return fingerprint_parts([("hub", json.dumps(asdict(self), sort_keys=True).encode())])

    def _rows(self) -> Iterator[dict[str, Any]]:
        try:
            from datasets import load_dataset
        except ImportError as error:
            raise DataError("source=hub needs the datasets library; pip install 'aptlab[hf]'") from error
        try:
            yield from load_dataset(self.repo, self.config, split=self.split, revision=self.revision, streaming=True)
        except Exception as error:
            raise DataError(
                f"repo={self.repo} (config {self.config}, split {self.split}) cannot be streamed: "
                f"{type(error).__name__}: {error}; offline, use source=stdlib or data.files=… with your own files"
            ) from error
