"""What `aptlab eval eval=…` can measure, as numbers. No torch; `aptlab.evals` holds the measurements."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from aptlab.errors import ConfigError, suggest_option
from aptlab.evals.tasks.needle import NeedleTask, PasskeyTask
from aptlab.evals.tasks.ruler import Haystack, build_ruler_tasks
from aptlab.evals.tasks.sample import Budget, SyntheticTask
from aptlab.limits import Fraction, NonNegativeInt, PositiveInt, validate_limits

DEPTHS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


class Evaluation(ABC):
    """An option of the group `eval`. A frozen dataclass; `name` is a short word for titles."""

    name: ClassVar[str]


@dataclass(frozen=True, kw_only=True)
class LengthLoss(Evaluation):
    """Loss at multiples of the trained context, on the same target tokens, and by position; see `evals.lengths`."""

    name: ClassVar[str] = "lengths"
    multiples: Sequence[PositiveInt] = (1, 2, 4, 8)
    tokens: PositiveInt = 65_536

    def __post_init__(self) -> None:
        if not self.multiples:
            raise ConfigError("multiples=[] measures nothing; choose lengths such as multiples=[1,2,4,8]")


@dataclass(frozen=True, kw_only=True)
class SlidingLoss(Evaluation):
    """Loss with a window that slides over the text; see `evals.sliding`.

    lengths  tokens of the window; null = `multiples` of the trained context
    stride   tokens that the window moves by; all but the first count only these, so each has a long context
    tokens   of text, the same at every length, in segments of the longest window
    """

    name: ClassVar[str] = "sliding"
    lengths: Sequence[PositiveInt] | None = None
    multiples: Sequence[PositiveInt] = (1, 2, 4, 8)
    stride: PositiveInt = 256
    tokens: PositiveInt = 65_536

    def __post_init__(self) -> None:
        validate_limits(self)
        self.at(1)

    def at(self, context: int) -> tuple[int, ...]:
        return choose_lengths(self.lengths, self.multiples, context)


@dataclass(frozen=True, kw_only=True)
class Retrieval(Evaluation):
    """Questions with known answers in prompts of given lengths: an abstract rule; see `evals.retrieval`.

    lengths  tokens of prompt and answer together; null = `multiples` of the trained context
    samples  per task, length and depth
    seed     of prompts; task, length, depth and the number of the sample decide the rest
    budget   tokens for the answer: fit (the longest answer and four more) | published (RULER's 30 to 128)
    """

    lengths: Sequence[PositiveInt] | None = None
    multiples: Sequence[PositiveInt] = (1, 2, 4, 8)
    samples: PositiveInt = 20
    seed: NonNegativeInt = 0
    budget: Budget = "fit"

    def __post_init__(self) -> None:
        validate_limits(self)
        self.at(1)
        self.made()
        self.places()

    def at(self, context: int) -> tuple[int, ...]:
        """Lengths, the shortest first."""
        return choose_lengths(self.lengths, self.multiples, context)

    @abstractmethod
    def made(self) -> tuple[SyntheticTask, ...]:
        """The tasks, in the order of the table."""

    def places(self) -> tuple[float | None, ...]:
        """Depths of the answer in the prompt, 0 to 1; None = drawn for each sample."""
        return (None,)

    @property
    def reads_text(self) -> bool:
        """Whether prompts hold text of the data module."""
        return any(getattr(task, "haystack", None) == "text" for task in self.made())


@dataclass(frozen=True, kw_only=True)
class PasskeyRetrieval(Retrieval):
    """A pass key of five digits among sentences that say nothing, by depth and length (arXiv:2305.16300)."""

    name: ClassVar[str] = "passkey"
    depths: Sequence[Fraction] = DEPTHS

    def made(self) -> tuple[SyntheticTask, ...]:
        return (PasskeyTask(),)

    def places(self) -> tuple[float | None, ...]:
        return sort_depths(self.depths)


@dataclass(frozen=True, kw_only=True)
class NeedleRetrieval(Retrieval):
    """One made-up fact in local text, by depth and length: the needle grid of Kamradt 2023 in RULER's form."""

    name: ClassVar[str] = "needle"
    depths: Sequence[Fraction] = DEPTHS
    haystack: Haystack = "text"
    value: Literal["number", "uuid", "word"] = "number"

    def made(self) -> tuple[SyntheticTask, ...]:
        return (NeedleTask(name="needle", haystack=self.haystack, value=self.value),)

    def places(self) -> tuple[float | None, ...]:
        return sort_depths(self.depths)


@dataclass(frozen=True, kw_only=True)
class Ruler(Retrieval):
    """The 13 synthetic tasks of RULER (Hsieh et al. 2024, arXiv:2404.06654); `tasks` chooses some, null takes all."""

    name: ClassVar[str] = "ruler"
    tasks: Sequence[str] | None = None
    haystack: Haystack = "text"

    def made(self) -> tuple[SyntheticTask, ...]:
        known = build_ruler_tasks(self.haystack)
        names = list(known) if self.tasks is None else list(self.tasks)
        for name in names:
            if name not in known:
                raise ConfigError(f"tasks: there is no task {name}{suggest_option(name, known)}")
        if not names:
            raise ConfigError(f"tasks=[] asks for nothing; null takes all of {', '.join(known)}")
        return tuple(known[name] for name in known if name in names)


@dataclass(frozen=True, kw_only=True)
class Harness(Evaluation):
    """Tasks of lm-evaluation-harness (the extra `harness`); see `evals.harness`.

    tasks    their names, as `lm_eval --tasks list` shows them
    include  a folder with task files of your own
    length   tokens of context; null = the trained ones. Longer texts lose their beginning
    batch    rows at a time
    limit    questions of each task; null takes all
    shots    solved examples in front of each question; null = what the task says
    """

    name: ClassVar[str] = "harness"
    tasks: Sequence[str]
    include: str | None = None
    length: PositiveInt | None = None
    batch: PositiveInt = 8
    limit: PositiveInt | None = None
    shots: NonNegativeInt | None = None

    def __post_init__(self) -> None:
        validate_limits(self)
        if not self.tasks:
            raise ConfigError("tasks=[] asks for nothing; name tasks of lm_eval, as in tasks=[hellaswag]")


def choose_lengths(lengths: Sequence[int] | None, multiples: Sequence[int], context: int) -> tuple[int, ...]:
    """The lengths that were named, or multiples of the trained context; rising, each once."""
    found = [multiple * context for multiple in multiples] if lengths is None else lengths
    if not found:
        raise ConfigError("lengths=[] measures nothing; choose lengths such as lengths=[512,1024]")
    return tuple(sorted(set(found)))


def sort_depths(depths: Sequence[float]) -> tuple[float, ...]:
    if not depths:
        raise ConfigError("depths=[] measures nothing; choose depths such as depths=[0,0.5,1]")
    return tuple(sorted({float(depth) for depth in depths}))
