"""Text out of a decoder: which token comes next, and the loop around it.

`rules`, `seeds`, `stop` and `prompts` import no torch; the rest is loaded when one of its names is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from aptlab.sample.rules import SamplingOptions, SamplingRules, make_sampling_rules
from aptlab.sample.seeds import draw_uniform
from aptlab.sample.stop import StopText

if TYPE_CHECKING:
    from aptlab.sample.loop import GeneratedRow, generate_rows, generate_tokens
    from aptlab.sample.texts import GeneratedText, generate_texts

__all__ = [
    "GeneratedRow",
    "GeneratedText",
    "SamplingOptions",
    "SamplingRules",
    "StopText",
    "draw_uniform",
    "generate_rows",
    "generate_texts",
    "generate_tokens",
    "make_sampling_rules",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    part = "texts" if name in ("GeneratedText", "generate_texts") else "loop"
    return getattr(importlib.import_module(f"{__name__}.{part}"), name)
