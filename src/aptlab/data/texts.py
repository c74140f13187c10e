"""Texts with a class: where they come from. No torch."""

from __future__ import annotations

import gzip
import hashlib
import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from aptlab.data.sources import Source
from aptlab.data.sources.fields import RowProblem, find_value, list_fields, list_other_fields, read_field
from aptlab.data.sources.paths import find_files
from aptlab.data.sources.readers import GZIP_ERRORS, read_json
from aptlab.errors import ConfigError, DataError
from aptlab.limits import PositiveInt, validate_limits

SHOWN = 12  # labels that a message lists


class LabelledText(NamedTuple):
    """One sample: what to call it, its text, the number of its class, and a digest of the document that it is of."""

    name: str
    text: str
    label: int
    document: str


@dataclass(frozen=True, kw_only=True)
class LabelledTexts(ABC):
    """Texts, each of which is of one of `names`; the same ones in the same order at every call."""

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """The classes, in the order of their numbers."""

    @abstractmethod
    def list_texts(self) -> list[LabelledText]:
        """All samples. Raises DataError and ConfigError where a class has none or a file cannot be read."""


@dataclass(frozen=True, kw_only=True)
class SourceTexts(LabelledTexts):
    """Passages of texts, whose class is the source that they are of.

    sources     the classes, by name
    characters  of a passage; documents are cut one passage behind the other, an end of less than half is left out
    samples     of each class at most, drawn from all its passages by `seed`
    """

    sources: Mapping[str, Source]
    characters: PositiveInt = 256
    samples: PositiveInt = 500
    seed: int = 0

    def __post_init__(self) -> None:
        validate_limits(self)
        check_names(self.names, "sources")

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.sources)

    def list_texts(self) -> list[LabelledText]:
        return [text for label, source in enumerate(self.sources.values()) for text in self._draw(source, label)]

    def _draw(self, source: Source, label: int) -> list[LabelledText]:
        import numpy as np

        from aptlab.data.rows.order import permute_indices

        passages = list(self._cut(source, label))
        if not passages:
            raise DataError(
                f"sources.{self.names[label]} has no document of {self.characters // 2} characters; give more text, or "
                f"fewer characters than {self.characters}"
            )
        count = len(passages)
        order = permute_indices(np.arange(count), count=count, seed=self.seed, epoch=label)
        return [passages[number] for number in order[: self.samples].tolist()]

    def _cut(self, source: Source, label: int) -> Iterator[LabelledText]:
        for name, text in source.documents():
            document = digest_text(text)
            for begin in range(0, len(text), self.characters):
                passage = text[begin : begin + self.characters]
                if 2 * len(passage) >= self.characters:
                    yield LabelledText(f"{name}, from character {begin}", passage, label, document)


@dataclass(frozen=True, kw_only=True)
class LabelledFiles(LabelledTexts):
    """Rows of your own .jsonl files (.gz too), each with a text and a label.

    files   a file, a glob or a list of them
    labels  the classes, in the order of their numbers, as the files spell them; numbers and words alike
    field   where a row has its text: a name, or a path such as `meta.content`
    label   where it has its label
    """

    files: str | Sequence[str]
    labels: Sequence[str | int] = ()
    field: str = "text"
    label: str = "label"

    def __post_init__(self) -> None:
        if not self.files:
            raise ConfigError("files is empty; give a file or a glob, such as files='reviews/*.jsonl'")
        if not self.labels:
            found = [repr(label) for label, _ in Counter(found for _, _, found in self._read()).most_common()]
            more = f", and {len(found) - SHOWN:,} more" if len(found) > SHOWN else ""
            raise ConfigError(
                f"labels is empty; name the classes in the order in which they are learned. The files have "
                f"{', '.join(sorted(found[:SHOWN]))}{more}"
            )
        check_names(self.names, "labels")

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(map(str, self.labels))

    def list_texts(self) -> list[LabelledText]:
        numbers, texts = {name: number for number, name in enumerate(self.names)}, []
        for where, text, label in self._read():
            if label not in numbers:
                raise DataError(
                    f"{where}: the label {label!r} is none of labels={list(self.names)}; add it, or mend it"
                )
            texts.append(LabelledText(where, text, numbers[label], digest_text(text)))
        if lacking := sorted(set(self.names) - {self.names[text.label] for text in texts}):
            raise DataError(f"labels={lacking[0]}: no row of the files has this label; leave it out, or give such rows")
        return texts

    def _read(self) -> Iterator[tuple[str, str, str]]:
        """Where it is, text and label of every row that is not blank. DataError names file and line."""
        for name, path in find_files([self.files] if isinstance(self.files, str) else list(self.files))[0]:
            for number, line in enumerate(_read_lines(path), start=1):
                if line.strip():
                    yield (f"{name}:{number}", *self._read_line(line, f"{path}, line {number}"))

    def _read_line(self, line: bytes, where: str) -> tuple[str, str]:
        try:
            row = read_json(line.decode("utf-8-sig"))
        except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
            raise DataError(f"{where}: no JSON: {error}; mend the file") from error
        if not isinstance(row, Mapping):
            raise DataError(f"{where}: expects a JSON object, got {type(row).__name__}; mend the file")
        text, label = read_field(row, self.field), find_value(row, self.label)
        if isinstance(text, RowProblem):
            raise DataError(f"{where}: {text.text}; mend the file, or set field")
        if label is None:
            other = list_other_fields(self.label, list(list_fields(row)))
            raise DataError(f"{where}: has no field {self.label!r}{other}; mend the file, or set label")
        if not isinstance(label[0], str | int):
            raise DataError(f"{where}: field {self.label!r} expects a word or a whole number, got {label[0]!r:.40}")
        return text, str(label[0])


def _read_lines(path: Path) -> Iterator[bytes]:
    name = path.name.lower()
    if not name.endswith((".jsonl", ".jsonl.gz")):
        raise DataError(f"{path} has no labels; give .jsonl or .jsonl.gz files, a row a line")
    try:
        with gzip.open(path, "rb") if name.endswith(".gz") else path.open("rb") as file:
            yield from file
    except (*GZIP_ERRORS, OSError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def check_names(names: Sequence[str], key: str) -> None:
    """ConfigError for fewer than two classes, or for one that is named twice."""
    if len(names) < 2:
        raise ConfigError(f"{key}={list(names)} leaves nothing to tell apart; name 2 classes or more")
    if again := [name for name, count in Counter(names).items() if count > 1]:
        raise ConfigError(f"{key}: {again[0]} stands there more than once; name each class once")


def digest_text(text: str) -> str:
    """64 hex digits of a text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
