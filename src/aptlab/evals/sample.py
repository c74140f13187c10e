"""`eval=sample`: a text of the model, for people to read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from aptlab.evals.base import Eval, EvalContext, Measurement
from aptlab.limits import Fraction, NonNegative, NonNegativeInt, PositiveInt, validate_limits
from aptlab.sample.screen import escape_controls


@dataclass(frozen=True, kw_only=True)
class TextSample(Eval):
    """What the model writes at the beginning of a document, with a fixed seed.

    tokens       at most, and fewer than the trained context
    temperature  of sampling; 0 takes the likeliest token
    top_p        keeps the fewest tokens with this much probability
    seed         of the draws

    rows: `samples` (text, tokens), one row; sample.txt holds the text alone.
    """

    name: ClassVar[str] = "sample"
    tokens: PositiveInt = 200
    temperature: NonNegative = 0.8
    top_p: Fraction = 0.95
    seed: NonNegativeInt = 0

    def __post_init__(self) -> None:
        validate_limits(self)

    @property
    def reads_data(self) -> bool:
        return False

    def measure(self, context: EvalContext) -> Measurement:
        """Write the text, in the weights' own precision."""
        import torch

        from aptlab.sample import SamplingRules, generate_tokens

        tokenizer = context.tokenizer
        with context.borrow_network() as net, torch.inference_mode():
            rows = generate_tokens(
                net,
                [tokenizer.opening],
                rules=SamplingRules(temperature=self.temperature, top_p=self.top_p),
                max_new_tokens=max(1, min(self.tokens, context.trained_context - 1)),
                eos=tokenizer.stops,
                seed=self.seed,
            )
        text = tokenizer.decode(rows[0])
        return Measurement(
            rows={"samples": [{"text": text, "tokens": len(rows[0])}]},
            tables=[f"\nsample\n{indent_lines(text)}\n"],
            files={"sample.txt": text + "\n"},
        )


def indent_lines(text: str) -> str:
    """The text behind a line on its left, with control characters spelled out."""
    return "\n".join(f"  | {line}" for line in escape_controls(text).splitlines())
