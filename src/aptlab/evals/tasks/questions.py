"""RULER's question answering, over documents of local text with made-up facts in them. No torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import ClassVar, Literal

from aptlab.evals.tasks.haystack import HAYS, NOISE, HaystackTexts, cache_units
from aptlab.evals.tasks.rng import KeyedRandom
from aptlab.evals.tasks.sample import Grow, PromptDraft, SyntheticTask
from aptlab.limits import NonNegativeInt, validate_limits

RELATIONS = ("was born in", "lives in", "is buried in")


@dataclass(frozen=True, kw_only=True)
class QuestionAnswering(SyntheticTask):
    """Documents, each with one made-up fact between sentences of local text, and a question about one of them.

    hops       1: `Mirelo Vantu was born in Kasodu.`; 2: `… works for Daluti Works.`, `Daluti Works has its seat in …`,
               so that the answer takes two documents
    sentences  pieces of text around each fact; where a length is too short, fewer

    RULER takes SQuAD (Rajpurkar et al. 2018) for qa_1 and HotpotQA (Yang et al. 2018) for qa_2 and hides their
    paragraphs among those of other questions (Hsieh et al. 2024, arXiv:2404.06654, section 3.4). Those data need a
    download and are in many training sets; here people, towns and companies are made up, so nothing but the prompt
    can tell the answer, and all other documents hold facts of the same kind about others.
    """

    match: ClassVar[Literal["all", "part"]] = "part"
    published: ClassVar[int] = 32
    name: str = "qa_1"
    hops: Literal[1, 2] = 1
    sentences: NonNegativeInt = 3
    haystack: Literal["noise", "text"] = "text"

    def __post_init__(self) -> None:
        validate_limits(self)

    @property
    def least(self) -> int:
        return 2

    def smaller(self) -> SyntheticTask | None:
        return dataclasses.replace(self, sentences=self.sentences - 1) if self.sentences else None

    def begin(self, chance: KeyedRandom, texts: HaystackTexts | None, depth: float | None) -> Grow:
        chain, question, answer = self._asked(chance)
        facts = cache_units(self._others(chance.fork("others"), set(chain)))
        pieces = HAYS[self.haystack](chance.fork("hay"), texts)
        lead, about = question

        def grow(n: int) -> PromptDraft:
            rng = chance.fork("order", n)
            order = rng.shuffled([*chain, *facts(n)])
            text = [piece.strip() for piece in pieces(len(order) * self.sentences)]
            body = [
                self._document(number, fact, text[(number - 1) * self.sentences :][: self.sentences], rng)
                for number, fact in enumerate(order, start=1)
            ]
            return PromptDraft(
                body="Read the documents and answer the question from them.\n" + "\n".join(body),
                question=f"\nQuestion: {lead}\nAnswer: {about}",
                answer=f" {answer}",
                answers=(answer,),
                evidence=tuple(chain),
                filler=f" {''.join(NOISE)}",
            )

        return grow

    def _asked(self, chance: KeyedRandom) -> tuple[list[str], tuple[str, str], str]:
        """Facts that hold the answer, the question with the words before its answer, and the answer."""
        person, town = make_person_name(chance), chance.name()
        if self.hops == 1:
            relation = chance.pick(RELATIONS)
            lead = f"Which town is it that {person} {relation}?"
            return [f"{person} {relation} {town}."], (lead, f"{person} {relation}"), town
        company = make_company_name(chance)
        chain = [f"{person} works for {company}.", f"{company} has its seat in {town}."]
        lead = f"In which town has the company that {person} works for its seat?"
        return chain, (lead, "It has its seat in"), town

    def _others(self, chance: KeyedRandom, taken: set[str]) -> Iterator[str]:
        """Facts of the same kinds about others, without end; no subject comes twice."""
        subjects = {" ".join(fact.split()[:2]) for fact in taken}
        for number in count():
            subject = make_person_name(chance) if self.hops == 1 or number % 2 else make_company_name(chance)
            if self.hops == 1:
                tail = f"{chance.pick(RELATIONS)} {chance.name()}."
            elif number % 2:
                tail = f"works for {make_company_name(chance)}."
            else:
                tail = f"has its seat in {chance.name()}."
            if subject not in subjects:
                subjects.add(subject)
                yield f"{subject} {tail}"

    @staticmethod
    def _document(number: int, fact: str, text: list[str], chance: KeyedRandom) -> str:
        at = chance.below(len(text) + 1)
        return f"Document {number}: " + " ".join([*text[:at], fact, *text[at:]])


def make_person_name(chance: KeyedRandom) -> str:
    """Two made-up names."""
    return f"{chance.name()} {chance.name(2)}"


def make_company_name(chance: KeyedRandom) -> str:
    return f"{chance.name()} Works"
