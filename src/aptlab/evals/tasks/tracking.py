"""RULER's variable tracking: follow a value from variable to variable. No torch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from aptlab.evals.tasks.haystack import HAYS, NOISE, HaystackTexts, insert_sentences
from aptlab.evals.tasks.rng import KeyedRandom
from aptlab.evals.tasks.sample import Grow, PromptDraft, SyntheticTask
from aptlab.limits import PositiveInt, validate_limits


@dataclass(frozen=True, kw_only=True)
class VariableTracking(SyntheticTask):
    """`VAR ABCDE = 12345.`, then `VAR FGHIJ = VAR ABCDE.`, `hops` times, spread over noise in this order.

    RULER's VT (Hsieh et al. 2024, arXiv:2404.06654, section 3.2; published: 1 chain of 4 hops). The other chains,
    with other values, mislead. Asked for are all variables of the first chain. Where a length is too short, fewer hops.
    Scores of these tasks must not be put beside published ones: facts are made up, and no examples stand before them.
    """

    published: ClassVar[int] = 30
    name: str = "vt"
    chains: PositiveInt = 1
    hops: PositiveInt = 4

    def __post_init__(self) -> None:
        validate_limits(self)

    def smaller(self) -> SyntheticTask | None:
        if self.chains > 1:
            return dataclasses.replace(self, chains=self.chains - 1)
        return dataclasses.replace(self, hops=self.hops - 1) if self.hops > 1 else None

    def begin(self, chance: KeyedRandom, texts: HaystackTexts | None, depth: float | None) -> Grow:
        names = chance.distinct(self.chains * (self.hops + 1), "variable")
        values = [chance.number(5)]
        while len(values) < self.chains:
            value = chance.number(5)
            values += [value] * (value not in values)
        lines, at = [], []
        for chain, value in enumerate(values):
            chain_names = names[chain * (self.hops + 1) :][: self.hops + 1]
            lines += [f"VAR {chain_names[0]} = {value}."]
            lines += [f"VAR {new} = VAR {old}." for old, new in pairwise(chain_names)]
            at += sorted(chance.uniform() for _ in chain_names)
        hay = HAYS["noise"](chance, texts)
        answers = names[: self.hops + 1]

        def grow(n: int) -> PromptDraft:
            return PromptDraft(
                body="The text below gives values to variables; some take the value of an earlier one. "
                "Keep track of them.\n" + insert_sentences(hay(n), lines, at),
                question=f"\nQuestion: Which variables have the value {values[0]}?\n"
                f"Answer: The variables with the value {values[0]} are",
                answer=" " + ", ".join(answers),
                answers=tuple(answers),
                evidence=tuple(lines[: self.hops + 1]),
                filler=f" {hay(n + 1)[-1]}{''.join(NOISE)}",
            )

        return grow
