"""What a needle is hidden in: sentences without end, made up or from local text. No torch."""

from __future__ import annotations

import functools
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from itertools import count, cycle, islice
from typing import TYPE_CHECKING, Any

from aptlab.errors import DataError

if TYPE_CHECKING:
    from aptlab.data.tokenizers import Tokenizer
    from aptlab.evals.tasks.rng import KeyedRandom

Hay = Callable[[int], list[str]]  # the first n units, each with the space or line end that follows it
NOISE = ("The river is long. ", "The hill is steep. ", "The road is dusty. ", "Off we walk. ", "Out and home again. ")
DOTS = " ." * 200
# A line, a sentence, or a stretch that ends at a space; concatenated, the pieces are the text again.
PIECE = re.compile(r"(?s).{1,80}?(?:\n+|[.!?]\s+)|.{80,160}?\s+|.{1,160}")


class HaystackTexts(ABC):
    """Documents that haystacks are taken from."""

    @property
    @abstractmethod
    def count(self) -> int:
        """How many documents there are, at least one."""

    @abstractmethod
    def document(self, number: int) -> str:
        """The text of one document."""

    @functools.lru_cache(maxsize=64)  # noqa: B019  documents live as long as the evaluation
    def pieces(self, number: int) -> tuple[str, ...]:
        """A document cut into pieces of at most 160 characters."""
        return tuple(PIECE.findall(self.document(number)))


class ListedTexts(HaystackTexts):
    """Documents given as a list."""

    def __init__(self, documents: Sequence[str]) -> None:
        self._documents = [text for text in documents if text.strip()]
        if not self._documents:
            raise DataError("there is no local text to hide a needle in; use another data=… or haystack=noise")

    @property
    def count(self) -> int:
        return len(self._documents)

    def document(self, number: int) -> str:
        return self._documents[number]


class StoredTexts(HaystackTexts):
    """The documents of one side of a data module's split, decoded when they are asked for."""

    def __init__(self, side: Any, tokenizer: Tokenizer) -> None:
        self._side, self._tokenizer = side, tokenizer
        if self.count < 1:
            raise DataError("the validation text is empty; use another data=… or haystack=noise")

    @property
    def count(self) -> int:
        return len(self._side.offsets) - 1

    def document(self, number: int) -> str:
        first, last = self._side.offsets[number : number + 2]
        return self._tokenizer.decode(self._side.tokens[first:last].tolist())


def make_noise_hay(chance: KeyedRandom, texts: HaystackTexts | None) -> Hay:
    """Five short sentences over and over, the same in every sample."""
    del chance, texts
    return lambda n: list(islice(cycle(NOISE), n))


def make_text_hay(chance: KeyedRandom, texts: HaystackTexts | None) -> Hay:
    """Local text from a random place on, document after document; noise where there is none."""
    if texts is None:
        return make_noise_hay(chance, texts)
    return cache_units(_walk(chance, texts))


HAYS: dict[str, Callable[[KeyedRandom, HaystackTexts | None], Hay]] = {"noise": make_noise_hay, "text": make_text_hay}


def cache_units(units: Iterator[str]) -> Hay:
    """The first n of an endless stream, which is kept as far as it was read."""
    seen: list[str] = []

    def first(n: int) -> list[str]:
        seen.extend(islice(units, max(0, n - len(seen))))
        return seen[:n]

    return first


def _walk(chance: KeyedRandom, texts: HaystackTexts) -> Iterator[str]:
    start = chance.below(texts.count)
    skipped = chance.uniform()
    for lap in count():
        pieces = texts.pieces((start + lap) % texts.count)
        yield from pieces[int(skipped * len(pieces)) if lap == 0 else 0 :]
        if pieces and not pieces[-1][-1].isspace():
            yield "\n"


def insert_sentences(units: Sequence[str], sentences: Sequence[str], depths: Sequence[float]) -> str:
    """The units with each sentence at its depth: 0 is before the first unit, 1 after the last.

    Depth counts characters. A sentence takes the place between two units that is nearest to its depth, and is
    followed by a line end where the text before it ended a line. Sentences of one place keep their order.
    """
    ends = [0]
    for unit in units:
        ends.append(ends[-1] + len(unit))
    slots = [min(range(len(ends)), key=lambda i: abs(ends[i] - depth * ends[-1])) for depth in depths]
    out: list[str] = []
    order = sorted(range(len(sentences)), key=lambda i: (slots[i], depths[i]))
    done = 0
    for i in order:
        out += units[done : slots[i]]
        done = slots[i]
        out.append(sentences[i] + ("\n" if out and out[-1].endswith("\n") else " "))
    return "".join([*out, *units[done:]]).rstrip()
