"""How likely the model thinks each letter at the beginning of a text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from aptlab.evals import Eval, EvalContext, Measurement
from aptlab.limits import PositiveInt, validate_limits


@dataclass(frozen=True, kw_only=True)
class FirstTokens(Eval):
    """The `count` likeliest tokens after the end of a text, with their probabilities."""

    name: ClassVar[str] = "first_tokens"
    count: PositiveInt = 3

    def __post_init__(self) -> None:
        validate_limits(self)

    @property
    def reads_data(self) -> bool:
        """No."""
        return False

    def measure(self, context: EvalContext) -> Measurement:
        """One row a token."""
        import torch

        with context.borrow_network() as net, torch.inference_mode():
            tokens = torch.tensor([[context.tokenizer.eos]], device=context.device)
            chances, ids = net(tokens).logits[0, -1].float().softmax(-1).topk(self.count)
        rows = [{"token": int(i), "probability": float(p)} for i, p in zip(ids, chances, strict=True)]
        return Measurement(rows={"tokens": rows}, tables=[f"first tokens: {rows}"])
