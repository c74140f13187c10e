"""Samples of exactly so many tokens. No torch.

A task writes its prompt for any number n of haystack units. `Samples` finds the largest n that fits, and fills the
last tokens with the beginning of the next unit, so that the tokenizer's own encoding of the whole prompt, its prefix
(`<s>`) in front, has exactly `length - budget` tokens: nothing is cut in the middle and no token is there that the
tokenizer would not have written.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from aptlab.errors import AptlabError, ConfigError
from aptlab.evals.tasks.haystack import DOTS, HaystackTexts
from aptlab.evals.tasks.rng import KeyedRandom

if TYPE_CHECKING:
    from aptlab.data.tokenizers import Tokenizer

PROBES = 12  # drafts that decide how long answers are
SPARE = 4  # tokens of the budget beyond the longest answer seen
TAIL = 160  # characters before the filler that are encoded again with each filler that is tried
ENOUGH = 256  # units from which on one more or less does not matter
TRIES = 50  # drafts of a sample until one fits
Budget = Literal["fit", "published"]


@dataclass(frozen=True)
class PromptDraft:
    """A prompt before it has its length.

    body      instruction and haystack; `filler` follows, as much of it as fills the last tokens
    question  from a line end to the words that the answer continues
    answer    the expected continuation, from a space on
    answers   what is looked for in the generated text
    evidence  sentences of the body that hold the answer
    """

    body: str
    question: str
    answer: str
    answers: tuple[str, ...]
    evidence: tuple[str, ...] = ()
    filler: str = DOTS


@dataclass(frozen=True)
class TaskSample:
    """A prompt of exactly `length - budget` tokens, and what should follow.

    tokens    the prompt
    answer    tokens of the expected continuation, at most `budget`
    answers   strings that the generated text is searched for: "all" of them, or "part", any one
    question  [first, last) tokens of the question in the prompt; the first may begin before it
    depth     where the first evidence is, in tokens: 0 at the start of the prompt, 1 at the question
    meta      index, the depth asked for, spans of the evidence, answer text, parameters of the task
    """

    task: str
    length: int
    budget: int
    tokens: tuple[int, ...]
    answer: tuple[int, ...]
    answers: tuple[str, ...]
    match: Literal["all", "part"]
    question: tuple[int, int]
    depth: float | None
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert len(self.tokens) == self.length - self.budget
        assert 0 < len(self.answer) <= self.budget


Grow = Callable[[int], PromptDraft]


@dataclass(frozen=True, kw_only=True)
class SyntheticTask(ABC):
    """A kind of question. A frozen dataclass whose fields say how hard it is."""

    match: ClassVar[Literal["all", "part"]] = "all"
    published: ClassVar[int]  # tokens that RULER generates
    name: str

    @property
    def least(self) -> int:
        """The fewest haystack units that leave something to search."""
        return 1

    @abstractmethod
    def begin(self, chance: KeyedRandom, texts: HaystackTexts | None, depth: float | None) -> Grow:
        """The draft for every number of units; `depth` None draws it. All choices come from `chance`."""

    def smaller(self) -> SyntheticTask | None:
        """The next easier form, for lengths that this one does not fit in; None at the end."""
        return None

    def parameters(self) -> dict[str, Any]:
        """The fields but the name, for results."""
        return {name: value for name, value in vars(self).items() if name != "name"}


class TaskSampler:
    """Samples of one task at one length, from a seed.

    The form of the task (the largest that fits) and the budget of the answer are the same for all of them, and
    depend on task, length and tokenizer only, so all prompts have the same number of tokens. A budget is "fit": the
    longest answer among a dozen plus four tokens; or "published": what RULER generates, 30 to 128.
    Raises ConfigError when not even the smallest form fits.
    """

    def __init__(
        self,
        task: SyntheticTask,
        *,
        tokenizer: Tokenizer,
        length: int,
        texts: HaystackTexts | None = None,
        seed: int = 0,
        budget: Budget = "fit",
    ) -> None:
        self.asked, self.tokenizer, self.length, self.texts, self.seed = task, tokenizer, length, texts, seed
        needs = []
        form: SyntheticTask | None = task
        while form is not None:
            need, self.budget = self._need(form, budget)
            needs.append(need)
            if need <= length:
                break
            form = form.smaller()
        if form is None:
            raise ConfigError(
                f"lengths: {task.name} needs at least {min(needs)} tokens with this tokenizer, got {length}; "
                f"ask for longer texts, as in lengths=[{2 * min(needs)}], or leave the task out"
            )
        self.task = form

    def make(self, index: int, depth: float | None = None) -> TaskSample:
        """Sample number `index`; the same whatever other samples are made. AptlabError if none can be."""
        room = self.length - self.budget - len(self.tokenizer.prefix)
        for salt in range(TRIES):
            key = (self.seed, self.asked.name, self.length, depth, index, salt)
            fitted = fit_draft(
                self.task.begin(KeyedRandom(*key), self.texts, depth), self.tokenizer, room, self.task.least
            )
            if fitted is None:
                continue
            draft, body, tokens = fitted
            answer = self._continuation(body + draft.question, tokens, draft.answer)
            self._check_text(draft, answer)
            if len(answer) <= self.budget:
                return self._sample(draft, body, tokens, answer, {"index": index, "asked_depth": depth})
        raise AptlabError(
            f"{self.asked.name}: no prompt of exactly {room} tokens whose answer has at most {self.budget} tokens "
            f"was found in {TRIES} drafts; use budget=fit, or another length than {self.length}"
        )

    def _check_text(self, draft: PromptDraft, answer: Sequence[int]) -> None:
        read = self.tokenizer.decode(answer)
        lost = [text for text in draft.answers if text.lower() not in read.lower()]
        if lost:
            raise AptlabError(
                f"{self.asked.name}: the tokenizer reads the answer {lost[0]!r} back as {read!r}, so nothing could be "
                "right; use a tokenizer that keeps letters, digits and hyphens"
            )

    def _need(self, form: SyntheticTask, budget: Budget) -> tuple[int, int]:
        """The shortest length for a form, and its answer's budget."""
        prompts, answers = [0], [0]
        for probe in range(PROBES):
            chance = KeyedRandom("probe", self.seed, form.name, self.length, probe)
            draft = form.begin(chance, self.texts, None)(form.least)
            prompts.append(len(self.tokenizer.encode(draft.body + draft.question)))
            question = self.tokenizer.encode(draft.question)
            answers.append(len(self._continuation(draft.question, question, draft.answer)))
        room = form.published if budget == "published" else max(answers) + SPARE
        return len(self.tokenizer.prefix) + max(prompts) + 2 + room, room

    def _continuation(self, text: str, tokens: Sequence[int], answer: str) -> list[int]:
        """Tokens of the answer after the prompt: as the tokenizer writes both together where it keeps the prompt."""
        both = self.tokenizer.encode(text + answer)
        if both[: len(tokens)] == list(tokens) and len(both) > len(tokens):
            return both[len(tokens) :]
        return self.tokenizer.encode(answer)

    def _before(self, text: str, tokens: Sequence[int]) -> int:
        """How many tokens of the prompt lie wholly in `text`, its beginning: a token may reach over the end of it."""
        prefix = self.tokenizer.encode(text)
        count = len(prefix)
        while count and prefix[count - 1] != tokens[count - 1]:
            count -= 1
        return count

    def _sample(
        self, draft: PromptDraft, body: str, tokens: Sequence[int], answer: Sequence[int], meta: dict[str, Any]
    ) -> TaskSample:
        first = len(self.tokenizer.prefix)
        start = first + self._before(body, tokens)
        places = [(body.index(sentence), len(sentence)) for sentence in draft.evidence]
        spans = [
            [first + self._before(body[:at], tokens), first + len(self.tokenizer.encode(body[: at + count]))]
            for at, count in places
        ]
        facts = {"answer": draft.answer, "evidence": spans, **self.task.parameters()}
        return TaskSample(
            task=self.asked.name,
            length=self.length,
            budget=self.budget,
            tokens=(*self.tokenizer.prefix, *tokens),
            answer=tuple(answer),
            answers=draft.answers,
            match=self.task.match,
            question=(start, first + len(tokens)),
            depth=spans[0][0] / start if spans else None,
            meta={**meta, **facts},
        )


def fit_draft(grow: Grow, tokenizer: Tokenizer, room: int, least: int) -> tuple[PromptDraft, str, list[int]] | None:
    """Draft, body with filler and prompt tokens, exactly `room` of them; None if this draft cannot have so many."""
    draft = find_largest_draft(grow, tokenizer, room, least)
    if draft is None:
        return None
    whole = len(tokenizer.encode(draft.body + draft.question))
    local = len(tokenizer.encode(draft.body[-TAIL:] + draft.question))
    for filler in (draft.filler, DOTS):
        for size in range(len(filler) + 1):
            tail = draft.body[-TAIL:] + filler[:size] + draft.question
            if len(tokenizer.encode(tail)) - local != room - whole:
                continue
            body = draft.body + filler[:size]
            tokens = tokenizer.encode(body + draft.question)
            if len(tokens) == room:
                return draft, body, tokens
    return None


def find_largest_draft(grow: Grow, tokenizer: Tokenizer, room: int, least: int) -> PromptDraft | None:
    """The draft with the most units that has at most `room` tokens, by interpolation, every third time by halves.

    From `ENOUGH` units on, one that lacks less than an average unit will do: each try encodes the whole text.
    """
    low = grow(least)
    first = count_prompt_tokens(low, tokenizer)
    if first > room:
        return None
    last, count, rate = least, first, 0.0
    above: tuple[int, int] | None = None
    trial = 0
    while True:
        if above is None:
            candidate = last + (max(1, int((room - count) / rate)) if rate > 0 else 8 << trial)
        elif above[0] - last == 1 or (last >= ENOUGH and room - count < rate):
            return low
        else:
            share = 0.5 if trial % 3 == 2 else (room - count) / max(above[1] - count, 1)
            candidate = min(max(last + int(share * (above[0] - last)), last + 1), above[0] - 1)
        trial += 1
        draft = grow(candidate)
        found = count_prompt_tokens(draft, tokenizer)
        rate = (found - first) / (candidate - least)
        if found > room:
            above = candidate, found
        else:
            low, last, count = draft, candidate, found


def count_prompt_tokens(draft: PromptDraft, tokenizer: Tokenizer) -> int:
    return len(tokenizer.encode(draft.body + draft.question))
