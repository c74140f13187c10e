"""Text out of a decoder: which token comes next, and the loop around it.

`rules`, `seeds` and `stop` import no torch; `loop` is loaded when one of its names is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aptlab.sample.rules import SamplingRules
from aptlab.sample.seeds import draw_uniform
from aptlab.sample.stop import StopText

if TYPE_CHECKING:
    from aptlab.sample.loop import GeneratedRow, generate_rows, generate_tokens

__all__ = ["GeneratedRow", "SamplingRules", "StopText", "draw_uniform", "generate_rows", "generate_tokens"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from aptlab.sample import loop

    return getattr(loop, name)
