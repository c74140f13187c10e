"""Pairs of a source and a target: from files, or made of text by a rule. No torch."""

from __future__ import annotations

import hashlib
import json
import random
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

from aptlab.data.sources.bad_rows import BadRows, check_on_bad
from aptlab.data.sources.base import Document, Note, Source
from aptlab.data.sources.fields import EMPTY, NO_FIELD, describe_no_text
from aptlab.data.sources.paths import NamedPath, find_files
from aptlab.data.sources.readers import DocumentRow, match_suffix, read_rows
from aptlab.errors import ConfigError, DataError, suggest_option
from aptlab.limits import NonNegativeInt, PositiveInt, validate_limits

ORDERS = ("copy", "reverse")
WHOLE_FILES = (".txt", ".md")  # one document a file, and no fields
INSPECTED = 8  # rows that a check looks into


class Pair(NamedTuple):
    """A source and the target that belongs to it, neither of them empty, and where they are from."""

    name: str
    source: str
    target: str


class PairSource(Source):
    """A source whose documents are pairs. As a text each pair is one document: the source, a line end, the target."""

    @abstractmethod
    def pairs(self, note: Note | None = None) -> Iterator[Pair]:
        """The pairs, in a fixed order; `note` gets one line about whatever was left out."""

    def documents(self, note: Note | None = None) -> Iterator[Document]:
        yield from ((pair.name, f"{pair.source}\n{pair.target}") for pair in self.pairs(note))


@dataclass(frozen=True)
class PairFiles(PairSource):
    """Your own pairs: .jsonl (also .gz) and .parquet, a source and a target in every row.

    files   a file, a glob or a list of them
    source  the column with the source, or a path to it such as `translation.en`
    target  the column with the target
    on_bad  "error" stops at the first bad row with file and line; "skip" leaves bad rows out and counts them

    Rows with an empty source or target are left out and counted. Raises DataError and ConfigError.
    """

    name: ClassVar[str] = "pairs"
    files: str | Sequence[str]
    source: str = "source"
    target: str = "target"
    on_bad: str = "error"

    def __post_init__(self) -> None:
        check_on_bad(self.on_bad)
        if not self.files:
            raise ConfigError("files is empty; give a glob, such as files='pairs/*.jsonl'")

    def pairs(self, note: Note | None = None) -> Iterator[Pair]:
        left_out, good = BadRows(), 0
        for name, path in self._find_files():
            before = good
            for number, (row, problem) in enumerate(self._read_pairs(path)):
                if problem is not None:
                    if self.on_bad == "error" and problem[1].kind != EMPTY:
                        raise DataError(self._describe_bad(path, *problem, first=good == before))
                    left_out.add(_name_place(path, problem[0]), problem[1])
                    continue
                good += 1
                line = row[0].line
                yield Pair(f"{name}:{number if line is None else line}", row[0].text, row[1].text)
        if not good:
            raise DataError(self._describe_no_pair(left_out))
        for line in left_out.list_notes(good) if note else ():
            assert note is not None
            note(line)

    def fingerprint(self) -> str:
        total = hashlib.sha256(json.dumps(["pairs", self.source, self.target, self.on_bad]).encode())
        for name, path in self._find_files():
            with path.open("rb") as file:
                total.update(f"{name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
        return total.hexdigest()

    def find_problems(self) -> Iterator[str]:
        """Files that are not there, and a first row that stops a run."""
        try:
            for _, path in self._find_files():
                for _, (_, problem) in zip(range(INSPECTED), self._read_pairs(path), strict=False):
                    if problem is not None and problem[1].kind != EMPTY and self.on_bad == "error":
                        yield self._describe_bad(path, *problem, first=True)
                        return
        except DataError as error:
            yield str(error)

    def _read_pairs(self, path: Path) -> Iterator[tuple[tuple[DocumentRow, DocumentRow], tuple | None]]:
        """The rows of a file read by both fields, and what is wrong: (line, problem)."""
        for row in zip(read_rows(path, self.source), read_rows(path, self.target), strict=True):
            bad = next((part for part in row if part.problem is not None), None)
            yield row, None if bad is None else (bad.line, bad.problem)

    def _find_files(self) -> list[NamedPath]:
        found, _ = find_files([self.files] if isinstance(self.files, str) else list(self.files))
        for _, path in found:
            if (match_suffix(path) or "").removesuffix(".gz") in WHOLE_FILES:
                raise DataError(f"{path} has no fields; give pairs as .jsonl or .parquet")
        return found

    def _describe_bad(self, path: Path, line: int | None, problem: tuple, *, first: bool) -> str:
        kind, text, *_ = problem
        if kind == NO_FIELD and first:
            return (
                f"{_name_place(path, line)}: {text}; name the columns with source.source={self.source} and "
                f"source.target={self.target}"
            )
        return f"{_name_place(path, line)}: {text}; mend the file or set on_bad=skip"

    def _describe_no_pair(self, left_out: BadRows) -> str:
        if left_out.fields:
            return describe_no_text(f"{self.source},{self.target}", str(self.files), left_out.fields)
        return f"files={self.files} has no pair: {'; '.join(left_out.list_notes(0))}"


@dataclass(frozen=True)
class TextPairs(PairSource):
    """Lines of a text, and the same line or its characters from the last to the first as the target.

    texts    a source of text
    order    copy | reverse
    longest  characters of a line; what is behind them is left out
    """

    name: ClassVar[str] = "lines"
    texts: Source
    order: Literal["copy", "reverse"] = "reverse"
    longest: PositiveInt = 48

    def __post_init__(self) -> None:
        validate_limits(self)
        check_order(self.order)

    def pairs(self, note: Note | None = None) -> Iterator[Pair]:
        for name, text in self.texts.documents(note):
            for number, line in enumerate(text.splitlines(), 1):
                if source := line.strip()[: self.longest].strip():
                    yield Pair(f"{name}:{number}", source, order_text(source, self.order))

    def fingerprint(self) -> str:
        facts = json.dumps(["lines", self.order, self.longest, self.texts.fingerprint()])
        return hashlib.sha256(facts.encode()).hexdigest()

    def find_problems(self) -> Iterator[str]:
        yield from self.texts.find_problems()


@dataclass(frozen=True)
class RandomPairs(PairSource):
    """Random letters as the source, and the same or reversed as the target: what no language model can guess.

    order     copy | reverse
    count     pairs
    alphabet  letters, each as likely as the others
    shortest, longest   letters of a source, every number as likely as the others
    seed      of the letters
    """

    name: ClassVar[str] = "letters"
    order: Literal["copy", "reverse"] = "copy"
    count: PositiveInt = 20_000
    alphabet: str = "abcdefghijklmnop"
    shortest: PositiveInt = 1
    longest: PositiveInt = 12
    seed: NonNegativeInt = 0

    def __post_init__(self) -> None:
        validate_limits(self)
        check_order(self.order)
        if self.longest < self.shortest:
            raise ConfigError(f"longest={self.longest} is below shortest={self.shortest}; give shortest at most")
        if len(set(self.alphabet)) < 2:
            raise ConfigError(f"alphabet={self.alphabet!r} leaves nothing to tell apart; give two letters or more")

    def pairs(self, note: Note | None = None) -> Iterator[Pair]:
        del note
        draw = random.Random(self.seed).random  # the one of its methods that every Python promises to keep
        for number in range(self.count):
            length = self.shortest + int(draw() * (self.longest - self.shortest + 1))
            source = "".join(self.alphabet[int(draw() * len(self.alphabet))] for _ in range(length))
            yield Pair(f"{number}", source, order_text(source, self.order))

    def fingerprint(self) -> str:
        facts = [self.order, self.count, self.alphabet, self.shortest, self.longest, self.seed]
        return hashlib.sha256(json.dumps(["letters", *facts]).encode()).hexdigest()


def check_order(order: str) -> None:
    """ConfigError unless `order` is one of ORDERS."""
    if order not in ORDERS:
        raise ConfigError(f"order={order}{suggest_option(order, ORDERS)}")


def order_text(text: str, order: str) -> str:
    """The text, or its characters from the last to the first."""
    return text[::-1] if order == "reverse" else text


def _name_place(path: Path, line: int | None) -> str:
    return f"{path}" if line is None else f"{path}, line {line}"
