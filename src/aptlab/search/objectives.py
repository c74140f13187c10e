"""What a candidate is judged by: its loss on hidden numbers, on long text, or both. No torch."""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from aptlab.errors import ConfigError, suggest_option
from aptlab.limits import Positive, validate_limits


class SearchObjective(abc.ABC):
    """One number per sample from its mean losses in nats, less is better and never negative.

    `needles` says whether the samples hide a number; without one `answer` is 0. `reads_text` says whether the loss of
    plain text enters, which ranks rules even where no number is found. `unit` names the number in tables.
    """

    needles: ClassVar[bool] = True
    reads_text: ClassVar[bool] = True
    unit: ClassVar[str] = "nats per token"

    @abc.abstractmethod
    def value(self, answer: float, text: float) -> float:
        """`answer` is the mean loss of the number's tokens, `text` that of the plain text far out."""


@dataclass(frozen=True)
class PerplexityObjective(SearchObjective):
    """Loss of long text (LongRoPE); its exponential is the perplexity."""

    needles: ClassVar[bool] = False

    def value(self, answer: float, text: float) -> float:
        """See SearchObjective."""
        return text


@dataclass(frozen=True)
class NeedleObjective(SearchObjective):
    """Loss of the hidden number alone (LongRoPE2): only what has to be remembered counts."""

    reads_text: ClassVar[bool] = False

    def value(self, answer: float, text: float) -> float:
        """See SearchObjective."""
        return answer


@dataclass(frozen=True)
class MixedObjective(SearchObjective):
    """Mean of both losses over those of a reference rule: ours; 1 = as good as the reference."""

    unit: ClassVar[str] = "of YaRN's loss"
    answer: Positive = 1.0
    text: Positive = 1.0

    def __post_init__(self) -> None:
        validate_limits(self)

    def value(self, answer: float, text: float) -> float:
        """See SearchObjective."""
        return (answer / self.answer + text / self.text) / 2


OBJECTIVES: dict[str, Callable[[], SearchObjective]] = {
    "ppl": PerplexityObjective,
    "needle_ppl": NeedleObjective,
    "mixed": MixedObjective,
}


def get_objective(name: str) -> SearchObjective:
    """The objective of this name; ConfigError names the others."""
    if name not in OBJECTIVES:
        raise ConfigError(f"objective={name}: no such objective{suggest_option(name, OBJECTIVES)}")
    return OBJECTIVES[name]()
