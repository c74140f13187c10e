"""Text out of a decoder: which token comes next, and the loop around it.

Only `loop` imports torch; it is loaded when one of its names is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aptlab.sample.rules import DRAFT_TOKENS, SamplingOptions, SamplingRules, make_sampling_rules
from aptlab.sample.seeds import draw_uniform
from aptlab.sample.stop import StopText
from aptlab.sample.texts import ChatPrompt, GeneratedText, Prompt, encode_prompt, generate_texts, make_prompts

if TYPE_CHECKING:
    from aptlab.sample.loop import GeneratedRow, generate_rows, generate_tokens

__all__ = [
    "DRAFT_TOKENS",
    "ChatPrompt",
    "GeneratedRow",
    "GeneratedText",
    "Prompt",
    "SamplingOptions",
    "SamplingRules",
    "StopText",
    "draw_uniform",
    "encode_prompt",
    "generate_rows",
    "generate_texts",
    "generate_tokens",
    "make_prompts",
    "make_sampling_rules",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from aptlab.sample import loop

    return getattr(loop, name)
