"""Facts in a haystack: the pass key, the needle, and RULER's eight retrieval tasks. No torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from aptlab.errors import ConfigError
from aptlab.evals.tasks.haystack import HAYS, NOISE, Hay, HaystackTexts, cache_units, insert_sentences
from aptlab.evals.tasks.rng import KeyedRandom
from aptlab.evals.tasks.sample import Grow, PromptDraft, SyntheticTask
from aptlab.limits import PositiveInt, validate_limits

NOUN = {"number": "number", "uuid": "code", "word": "word"}
DRAWN = {"word": "key", "uuid": "uuid", "number": "number"}


@dataclass(frozen=True, kw_only=True)
class PasskeyTask(SyntheticTask):
    """A number of five digits among sentences that say nothing, at a given depth.

    The idea of Mohtashami & Jaggi 2023 (arXiv:2305.16300, section 4.2) in our own words; theirs draws 1 to 50,000,
    so that some keys are shorter than others, ours have five digits each.
    """

    published: ClassVar[int] = 32
    name: str = "passkey"

    def begin(self, chance: KeyedRandom, texts: HaystackTexts | None, depth: float | None) -> Grow:
        key = chance.number(5)
        at = chance.uniform() if depth is None else depth
        hay = HAYS["noise"](chance, texts)
        sentence = f"The pass key is {key}. Keep it in mind: {key} is the pass key."

        def grow(n: int) -> PromptDraft:
            return PromptDraft(
                body="A pass key is hidden in the text below. Find it and keep it in mind.\n"
                + insert_sentences(hay(n), [sentence], [at]),
                question="\nWhat is the pass key? The pass key is",
                answer=f" {key}",
                answers=(key,),
                evidence=(sentence,),
                filler=f" {hay(n + 1)[-1]}{''.join(NOISE)}",
            )

        return grow


@dataclass(frozen=True, kw_only=True)
class NeedleTask(SyntheticTask):
    """`The secret number of balu-timo is 1234567.`, once or several times, and questions for some of them.

    RULER's NIAH (Hsieh et al. 2024, arXiv:2404.06654, section 3.1 and table 5).

    keys      keys in the text; those that are not asked for mislead
    values    numbers of each key; all are asked for
    queries   keys that are asked for, in another order than in the text
    haystack  noise | text | needles (of other keys; there the haystack itself misleads)
    Where a length is too short for so many, one less of what is more than one.
    """

    published: ClassVar[int] = 128
    name: str = "needle"
    keys: PositiveInt = 1
    values: PositiveInt = 1
    queries: PositiveInt = 1
    key: Literal["word", "uuid"] = "word"
    value: Literal["word", "number", "uuid"] = "number"
    haystack: Literal["noise", "text", "needles"] = "noise"

    def __post_init__(self) -> None:
        validate_limits(self)
        if self.queries > 1 and self.values > 1:
            raise ConfigError(
                f"{self.name}: queries={self.queries} with values={self.values}: "
                "one question asks for several values or for several keys; set one of them to 1"
            )

    def smaller(self) -> SyntheticTask | None:
        for name in ("keys", "values", "queries"):
            if getattr(self, name) > 1:
                less: dict[str, int] = {name: getattr(self, name) - 1}
                return dataclasses.replace(self, **less)  # type: ignore[arg-type]
        return None

    def begin(self, chance: KeyedRandom, texts: HaystackTexts | None, depth: float | None) -> Grow:
        count = max(self.keys, self.queries)
        keys = chance.distinct(count, DRAWN[self.key])
        pairs = [key for key in keys for _ in range(self.values)]
        values = chance.distinct(len(pairs), DRAWN[self.value], taken=keys)
        at = [chance.uniform() if depth is None else depth for _ in pairs]
        queried = chance.shuffled(keys[: self.queries])
        facts = [self.fact(key, value) for key, value in zip(pairs, values)]
        order = sorted(range(len(pairs)), key=lambda i: at[i])
        if self.values > 1:
            found = [i for i in order if pairs[i] == queried[0]]
        else:
            found = [pairs.index(key) for key in queried]
        hay = self._hay(chance, texts, keys)
        several, names = len(found) > 1, join_words(queried)
        noun, verb = NOUN[self.value] + "s" * several, "are" if several else "is"

        def grow(n: int) -> PromptDraft:
            return PromptDraft(
                body=f"Some secret {NOUN[self.value]}s are hidden in the text below. Keep them in mind.\n"
                + insert_sentences(hay(n), facts, at),
                question=f"\nQuestion: What {verb} the secret {noun} of {names}?\n"
                f"Answer: The secret {noun} of {names} {verb}",
                answer=" " + ", ".join(values[i] for i in found),
                answers=tuple(values[i] for i in found),
                evidence=tuple(facts[i] for i in found),
                filler=f" {''.join(hay(n + 4)[n:])}" if self.haystack != "needles" else f" {''.join(NOISE)}",
            )

        return grow

    def fact(self, key: str, value: str) -> str:
        return f"The secret {NOUN[self.value]} of {key} is {value}."

    def _hay(self, chance: KeyedRandom, texts: HaystackTexts | None, keys: list[str]) -> Hay:
        rng = chance.fork("hay")
        return cache_units(self._others(rng, keys)) if self.haystack == "needles" else HAYS[self.haystack](rng, texts)

    def _others(self, chance: KeyedRandom, keys: list[str]) -> Iterator[str]:
        """Needles whose keys are not in `keys`, without end."""
        taken = set(keys)
        while True:
            key = getattr(chance, DRAWN[self.key])()
            value = getattr(chance, DRAWN[self.value])()
            if key not in taken:
                taken.add(key)
                yield self.fact(key, value) + " "


def join_words(words: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
