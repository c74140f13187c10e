"""`eval=passkey`: a pass key in a text that says nothing (Mohtashami & Jaggi 2023, arXiv:2305.16300)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from aptlab.evals.options import DEPTHS, sort_depths
from aptlab.evals.retrieval import RetrievalEval
from aptlab.evals.tasks.needle import PasskeyTask
from aptlab.evals.tasks.sample import SyntheticTask
from aptlab.limits import Fraction


@dataclass(frozen=True, kw_only=True)
class PasskeyRetrieval(RetrievalEval):
    """A pass key of five digits among sentences that say nothing, by depth and length.

    depths  where the key is in the prompt: 0 at its start, 1 at the question
    """

    name: ClassVar[str] = "passkey"
    depths: Sequence[Fraction] = DEPTHS

    def list_tasks(self) -> tuple[SyntheticTask, ...]:
        """The one task."""
        return (PasskeyTask(),)

    def list_depths(self) -> tuple[float | None, ...]:
        """The depths, rising."""
        return sort_depths(self.depths)
