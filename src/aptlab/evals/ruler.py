"""`eval=ruler`: the 13 synthetic tasks of RULER (Hsieh et al. 2024, arXiv:2404.06654)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from aptlab.errors import ConfigError, suggest_option
from aptlab.evals.retrieval import RetrievalEval
from aptlab.evals.tasks.ruler import Haystack, build_ruler_tasks
from aptlab.evals.tasks.sample import SyntheticTask


@dataclass(frozen=True, kw_only=True)
class Ruler(RetrievalEval):
    """The 13 synthetic tasks of RULER, exact in tokens, smaller for short lengths.

    tasks     some of them by name; null takes all
    haystack  text (validation text of the data) | noise: what stands where RULER has essays
    """

    name: ClassVar[str] = "ruler"
    tasks: Sequence[str] | None = None
    haystack: Haystack = "text"

    def list_tasks(self) -> tuple[SyntheticTask, ...]:
        """The chosen tasks in RULER's order; ConfigError for a name that is none."""
        known = build_ruler_tasks(self.haystack)
        names = list(known) if self.tasks is None else list(self.tasks)
        for name in names:
            if name not in known:
                raise ConfigError(f"eval.tasks: there is no task {name}{suggest_option(name, known)}")
        if not names:
            raise ConfigError(f"eval.tasks=[] asks for nothing; null takes all of {', '.join(known)}")
        return tuple(known[name] for name in known if name in names)
