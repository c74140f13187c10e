"""Next-token prediction. Legend: B batch, T tokens, V vocabulary."""

from __future__ import annotations

import functools
import math
from typing import Any, ClassVar, Protocol, runtime_checkable

from aptlab.models import Decoder
from aptlab.models.cost import count_part_parameters, estimate_cost
from aptlab.nn.positions.rope import list_rope_warnings
from aptlab.objectives import NextToken, Objective, compute_perplexity
from aptlab.tasks.base import Batch, NameOption, Optim, Schedule, Task


@runtime_checkable
class HasBytesPerToken(Protocol):
    """Data that knows the UTF-8 bytes per token of its validation text."""

    @property
    def bytes_per_token(self) -> float: ...


class LanguageTask(Task):
    """A language model: tokens [B, T] in, logits [B, T, V] out, trained for `objective` (next token by default).

    Validation gives val/loss in nats per token, val/ppl = exp(loss), and val/bpb = loss / ln 2 / bytes per token.
    """

    net: Decoder
    unit: ClassVar[str] = "tokens"

    def __init__(
        self,
        net: Decoder,
        *,
        optim: Optim,
        schedule: Schedule,
        objective: Objective | None = None,
        compile: bool = False,
    ) -> None:
        super().__init__(net, objective=objective or NextToken(), optim=optim, schedule=schedule, compile=compile)
        self.bytes_per_token = 1.0  # until the data says otherwise: tokens are bytes

    def bind_data(self, data: object) -> None:
        """Take the bytes per token of the validation text, so that losses can be told in bits per byte."""
        if isinstance(data, HasBytesPerToken):
            self.bytes_per_token = data.bytes_per_token

    def forward(self, batch: Batch, *, trace: bool = False) -> Any:
        """The network's Output, or its Hidden for an objective that needs no logits."""
        # net.compile() wraps __call__ alone, so `hidden` runs as it is.
        call: Any = self.net if self.objective.needs == "logits" else self.net.hidden
        return call(batch["tokens"], positions=batch.get("positions"), segments=batch.get("segments"), trace=trace)

    def count_units(self, batch: Batch) -> int:
        """Tokens read."""
        return batch["tokens"].numel()

    def list_warnings(self, context: int, name_option: NameOption) -> list[str]:
        """What the position rule says about this context."""
        name_rope = functools.partial(name_option, "rope")
        head_dim = self.net.shape.head_sizes()[2]
        return list_rope_warnings(self.net.rope, head_dim=head_dim, length=context, name_option=name_rope)

    def estimate_training_flops(self, context: int) -> int:
        return estimate_cost(self.net, context).training

    def count_part_parameters(self) -> list[tuple[str, int]]:
        return count_part_parameters(self.net)

    def describe_loss(self, loss: float) -> dict[str, float]:
        """loss, ppl and bpb (bits per byte)."""
        return {
            "loss": loss,
            "ppl": compute_perplexity(loss),
            "bpb": loss / math.log(2) / self.bytes_per_token,
        }
