"""`eval=needle`: one made-up fact in local text, the needle grid of Kamradt 2023 in RULER's form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from aptlab.evals.options import DEPTHS, sort_depths
from aptlab.evals.retrieval import RetrievalEval
from aptlab.evals.tasks.needle import NeedleTask
from aptlab.evals.tasks.ruler import Haystack
from aptlab.evals.tasks.sample import SyntheticTask
from aptlab.limits import Fraction


@dataclass(frozen=True, kw_only=True)
class NeedleRetrieval(RetrievalEval):
    """One made-up fact in local text, by depth and length.

    depths    where the fact is in the prompt: 0 at its start, 1 at the question
    haystack  text (validation text of the data) | noise (RULER's repeated sentence)
    value     what is asked for: number (7 digits) | uuid | word
    """

    name: ClassVar[str] = "needle"
    depths: Sequence[Fraction] = DEPTHS
    haystack: Haystack = "text"
    value: Literal["number", "uuid", "word"] = "number"

    def list_tasks(self) -> tuple[SyntheticTask, ...]:
        """The one task."""
        return (NeedleTask(name="needle", haystack=self.haystack, value=self.value),)

    def list_depths(self) -> tuple[float | None, ...]:
        """The depths, rising."""
        return sort_depths(self.depths)
