"""Random choices and made-up words that depend on a key alone, on every machine and Python. No torch."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")
CONSONANTS, VOWELS = "bdfgklmnprstvz", "aeiou"
CAPITALS = "ABCDEFGHJKLMNPQRSTUVWXYZ"


class KeyedRandom:
    """Choices from a key of plain values. Equal keys give equal choices; only `random.random` is drawn from,
    whose numbers Python promises to keep."""

    def __init__(self, *key: object) -> None:
        self._key = key
        self._random = random.Random("/".join(map(str, key))).random

    def fork(self, *key: object) -> KeyedRandom:
        """Choices that do not depend on how many were made here."""
        return KeyedRandom(*self._key, *key)

    def uniform(self) -> float:
        """A number in [0, 1)."""
        return self._random()

    def below(self, count: int) -> int:
        """A whole number in [0, count)."""
        return int(self._random() * count)

    def pick(self, items: Sequence[T]) -> T:
        return items[self.below(len(items))]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """The items in random order (Fisher and Yates 1938)."""
        out = list(items)
        for last in range(len(out) - 1, 0, -1):
            other = self.below(last + 1)
            out[last], out[other] = out[other], out[last]
        return out

    def word(self, syllables: int = 3) -> str:
        """A made-up word of two letters a syllable: words of one length never contain each other."""
        return "".join(self.pick(CONSONANTS) + self.pick(VOWELS) for _ in range(syllables))

    def name(self, syllables: int = 3) -> str:
        return self.word(syllables).capitalize()

    def key(self) -> str:
        """Two words with a hyphen, as `balu-timo`."""
        return f"{self.word(2)}-{self.word(2)}"

    def variable(self) -> str:
        """Five capitals."""
        return "".join(self.pick(CAPITALS) for _ in range(5))

    def number(self, digits: int = 7) -> str:
        """A number of exactly this many digits."""
        low = 10 ** (digits - 1)
        return str(low + self.below(9 * low))

    def uuid(self) -> str:
        """32 hexadecimal digits in the groups of a UUID of version 4 (RFC 9562)."""
        digits = [f"{self.below(16):x}" for _ in range(32)]
        digits[12], digits[16] = "4", "89ab"[self.below(4)]
        text = "".join(digits)
        return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))

    def text(self, kind: str) -> str:
        """A `word` key, `number` or `uuid`."""
        return {"word": self.key, "number": self.number, "uuid": self.uuid}[kind]()

    def distinct(self, count: int, draw: str, taken: Sequence[str] = ()) -> list[str]:
        """`count` different texts of the method called `draw`, none of them in `taken`."""
        found: list[str] = []
        seen = set(taken)
        while len(found) < count:
            made = getattr(self, draw)()
            if made not in seen:
                seen.add(made)
                found.append(made)
        return found
