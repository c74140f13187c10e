"""Rows that are no documents: the rule `on_bad`, and one line about all that were left out."""

from __future__ import annotations

from aptlab.data.sources.fields import EMPTY, RowProblem
from aptlab.errors import ConfigError, suggest_option
from aptlab.shown import count_nouns

ON_BAD = ("error", "skip")


def check_on_bad(on_bad: str) -> None:
    """ConfigError unless `on_bad` is one of ON_BAD."""
    if on_bad not in ON_BAD:
        raise ConfigError(f"on_bad={on_bad}{suggest_option(on_bad, ON_BAD)}")


class BadRows:
    """Counts what a source leaves out, by kind of problem, with the first place of each kind."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._first: dict[str, str] = {}
        self.fields: dict[str, None] = {}  # that hold text in rows where the one that was asked for does not

    def add(self, where: str, problem: RowProblem) -> None:
        """One more row that is left out."""
        self._counts[problem.kind] = self._counts.get(problem.kind, 0) + 1
        self._first.setdefault(problem.kind, f"{where}: {problem.text}")
        self.fields |= dict.fromkeys(problem.fields)

    @property
    def empty(self) -> int:
        """Rows and files without any text; they are no mistake."""
        return self._counts.get(EMPTY, 0)

    @property
    def bad(self) -> int:
        """All other rows that are left out."""
        return sum(self._counts.values()) - self.empty

    def describe_bad(self) -> str:
        """The first place of every kind but EMPTY, with their numbers where there are several kinds."""
        kinds = [kind for kind in self._counts if kind != EMPTY]
        if len(kinds) == 1:
            return self._first[kinds[0]]
        return "; ".join(f"{self._first[kind]} ({self._counts[kind]:,} of this kind)" for kind in kinds)

    def list_notes(self, good: int) -> list[str]:
        """A line about empty texts and one about bad rows, each only where there are some."""
        notes = []
        if self.empty:
            notes.append(f"left out {self.empty:,} without any text; the first: {self._first[EMPTY]}")
        if self.bad:
            notes.append(
                f"left out {self.bad:,} bad of {count_nouns(self.bad + good, 'row')}; the first: {self.describe_bad()}"
            )
        return notes
