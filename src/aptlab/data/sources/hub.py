"""Data sets of the Hugging Face Hub."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from aptlab.data.sources.bad_rows import BadRows, check_on_bad
from aptlab.data.sources.base import Document, Note, Source, fingerprint_parts
from aptlab.data.sources.fields import EMPTY, NO_FIELD, RowProblem, describe_no_text, read_field
from aptlab.errors import DataError
from aptlab.limits import PositiveInt, validate_limits

MISSING = "source=hub needs the datasets library; pip install 'aptlab[hf]'"


@dataclass(frozen=True)
class Hub(Source):
    """A data set of the Hugging Face Hub, streamed by the `datasets` library; needs a network.

    `limit` keeps the first documents only. `field` may be a path such as `meta.content`; `on_bad` is that of
    `TextFiles`, and empty rows are left out and counted. The fingerprint covers these settings, not the content: pin
    `revision` (a commit) when the data set may change. Raises DataError when it cannot be read.
    """

    name: ClassVar[str] = "hub"
    repo: str
    config: str | None = None
    split: str = "train"
    field: str = "text"
    limit: PositiveInt | None = 10_000
    revision: str | None = None
    on_bad: str = "error"

    def __post_init__(self) -> None:
        validate_limits(self)
        check_on_bad(self.on_bad)

    def documents(self, note: Note | None = None) -> Iterator[Document]:
        left_out, good = BadRows(), 0
        for number, row in enumerate(self._rows(), start=1):
            found = read_field(row, self.field)
            if isinstance(found, RowProblem):
                where = f"repo={self.repo}, row {number}"
                if found.kind != EMPTY and self.on_bad == "error":
                    raise self._make_error(where, found, first=good == 0)
                left_out.add(where, found)
            else:
                good += 1
                yield f"{self.split}:{number}", found
            if number == self.limit:
                break
        if not good and left_out.fields:
            raise DataError(describe_no_text(self.field, f"repo={self.repo}", left_out.fields))
        if not good and left_out.bad:
            raise DataError(f"repo={self.repo} has no text: {'; '.join(left_out.list_notes(0))}")
        if note:
            for line in left_out.list_notes(good):
                note(line)

    def fingerprint(self) -> str:
        settings = asdict(self)
        if self.on_bad == "error":  # which is what it was before there was a choice
            del settings["on_bad"]
        return fingerprint_parts([("hub", json.dumps(settings, sort_keys=True).encode())])

    def find_problems(self) -> Iterator[str]:
        """A missing library; whether the data set is there, only the network knows."""
        if importlib.util.find_spec("datasets") is None:
            yield MISSING

    def _make_error(self, where: str, problem: RowProblem, *, first: bool) -> DataError:
        if problem.kind == NO_FIELD:
            return DataError(f"{where} {problem.text}" + ("; choose one of these with field=…" if first else ""))
        return DataError(f"{where}: {problem.text}; to leave such rows out, set on_bad=skip")

    def _rows(self) -> Iterator[dict[str, Any]]:
        try:
            from datasets import load_dataset
        except ImportError as error:
            raise DataError(MISSING) from error
        try:
            yield from load_dataset(self.repo, self.config, split=self.split, revision=self.revision, streaming=True)
        except Exception as error:
            raise DataError(
                f"repo={self.repo} (config {self.config}, split {self.split}) cannot be streamed: "
                f"{type(error).__name__}: {error}; offline, use source=stdlib or data.files=… with your own files"
            ) from error
