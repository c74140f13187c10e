"""Sequence to sequence. Legend: B batch, S tokens of the source, T tokens of the target, V vocabulary."""

from __future__ import annotations

import functools
import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from aptlab.errors import ConfigError
from aptlab.models import EncoderDecoder
from aptlab.models.cost import count_pair_parameters, estimate_pair_flops
from aptlab.nn.positions.rope import list_rope_warnings
from aptlab.objectives import IGNORE, NextToken, Objective, compute_perplexity
from aptlab.tasks.base import Batch, NameOption, Optim, Schedule, Task, find_target_context


class Seq2SeqTask(Task):
    """A source [B, S] and a target up to now [B, T] in, logits of its next tokens [B, T, V] out.

    A batch has "tokens" (the source), "segments" where sources are padded, "decoder_tokens" (what begins a target, then
    the target) and "targets" (the target, then what ends it), IGNORE where there is none. Trained for `objective`, next
    token by default, with the right target before every token (teacher forcing).

    Validation gives val/loss in nats per token of targets, val/ppl, val/accuracy (tokens that are the likeliest) and
    val/exact (rows all of whose tokens are).
    """

    net: EncoderDecoder
    unit: ClassVar[str] = "tokens"
    validation_sums: ClassVar[int] = 5  # nats, targets, right tokens, rows with a target, right rows

    def __init__(
        self,
        net: EncoderDecoder,
        *,
        optim: Optim,
        schedule: Schedule,
        objective: Objective | None = None,
        compile: bool = False,
    ) -> None:
        super().__init__(net, objective=objective or NextToken(), optim=optim, schedule=schedule, compile=compile)
        self.target_context = 0  # until the data says

    def bind_data(self, data: object) -> None:
        """Take the length of targets. ConfigError for data whose rows are no pairs."""
        self.target_context = find_target_context(data)
        if not self.target_context:
            raise ConfigError(
                f"task=seq2seq needs rows of a source and a target, and {type(data).__name__} with these rows has "
                "none; use data=span_corruption for any text, or data=pairs with source=pairs, copy or reverse"
            )

    def forward(self, batch: Batch, *, trace: bool = False) -> Any:
        """The network's Output, or its Hidden for an objective that needs no logits."""
        # net.compile() wraps __call__ alone, so `hidden` runs as it is.
        call: Any = self.net if self.objective.needs == "logits" else self.net.hidden
        return call(
            batch["tokens"], decoder_tokens=batch["decoder_tokens"], segments=batch.get("segments"), trace=trace
        )

    def count_units(self, batch: Batch) -> int:
        """Tokens read by both stacks, padding counted."""
        return batch["tokens"].numel() + batch["decoder_tokens"].numel()

    def list_warnings(self, context: int, name_option: NameOption) -> list[str]:
        """What the position rule says about this context."""
        name_rope = functools.partial(name_option, "rope")
        head_dim = self.net.shape.head_sizes()[2]
        return list_rope_warnings(self.net.rope, head_dim=head_dim, length=context, name_option=name_rope)

    def estimate_training_flops(self, context: int) -> int:
        """FLOPs per token of a step: forward, and twice that backward, over a whole source and target."""
        target = self.target_context or context
        return round(3 * estimate_pair_flops(self.net, context, target) / (context + target))

    def count_part_parameters(self) -> list[tuple[str, int]]:
        return count_pair_parameters(self.net)

    def sum_validation(self, output: Any, batch: Batch) -> Tensor:
        """Nats, targets, right tokens, rows, right rows, [5]."""
        targets_BT = batch["targets"]
        counted_BT = targets_BT != IGNORE
        right_BT = (output.logits.argmax(-1) == targets_BT) & counted_BT
        rows_B = counted_BT.any(1)
        exact_B = (right_BT | ~counted_BT).all(1) & rows_B
        counts = torch.stack([part.sum().double() for part in (right_BT, rows_B, exact_B)])
        return torch.cat((super().sum_validation(output, batch), counts))

    def describe_sums(self, sums: list[float]) -> dict[str, float]:
        """loss, ppl, accuracy and exact."""
        loss = super().describe_sums(sums)["loss"]
        _, targets, right, rows, exact = sums
        return {
            "loss": loss,
            "ppl": compute_perplexity(loss),
            "accuracy": right / targets if targets else math.nan,
            "exact": exact / rows if rows else math.nan,
        }
