"""What is minimised: losses as functions and small modules, and the one token loss of the project.

`IGNORE`, `StepState` and `compute_perplexity` import no torch; the rest is loaded when first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aptlab.objectives.perplexity import IGNORE, compute_perplexity
from aptlab.objectives.step import StepState, get_step_state

if TYPE_CHECKING:
    from aptlab.objectives.base import Objective
    from aptlab.objectives.next_token import NextToken
    from aptlab.objectives.nll import compute_token_nll

__all__ = [
    "IGNORE",
    "NextToken",
    "Objective",
    "StepState",
    "compute_perplexity",
    "compute_token_nll",
    "get_step_state",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from aptlab.objectives import base, next_token, nll

    return {
        "NextToken": next_token.NextToken,
        "Objective": base.Objective,
        "compute_token_nll": nll.compute_token_nll,
    }[name]
