"""Measurements of a finished network: loss at lengths it was not trained for, and what it finds in long texts.

`rules` and `tasks` import no torch; the measurements are loaded when one of their names is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aptlab.evals.fitting import fit_windows
    from aptlab.evals.lengths import LengthResults, evaluate_lengths, evaluate_windows

__all__ = ["LengthResults", "evaluate_lengths", "evaluate_windows", "fit_windows"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "fit_windows":
        from aptlab.evals.fitting import fit_windows

        return fit_windows
    from aptlab.evals import lengths

    return getattr(lengths, name)
