"""What every objective owes: named parts of a loss, sums for validation, and the weights of auxiliary losses."""

from __future__ import annotations

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from aptlab.errors import ConfigError
from aptlab.nn.width import FULL
from aptlab.objectives.passes import Passes

log = logging.getLogger("aptlab")
Batch = Mapping[str, Tensor]
Parts = dict[str, Tensor]


class Objective(nn.Module, ABC):
    """A loss over the output of a network, with the auxiliary losses of its layers.

    total = loss + sum over words w of aux[w] · mean over layers of output.aux[".../w"]

    `output.aux` names a loss of each layer, as "3/ffn/balance" (a router's balance, a gate's penalty): the last word
    chooses the weight, so `aux={"balance": 0.01}` weighs the balance of all layers. A word without a weight is not
    minimised and a weight without such a word weighs nothing; either is logged once. Raises ConfigError for a weight
    that is no finite number.

    replays  what is drawn from a memory for each batch, one draw each: "targets" (rows with their targets), "logits"
             (rows with the logits that the network had when they came); see `aptlab.callbacks.replay`
    remembers  what a callback keeps of a task that ended: "network" (its logits are the batch's "teacher"), "weights"
             (their change is the batch's "penalty"); see `aptlab.callbacks.consolidation`
    needs  "logits": `output` is the network's whole Output; "hidden": what comes before the head is enough
    """

    needs: Literal["logits", "hidden"] = "logits"
    remembers: ClassVar[Literal["nothing", "network", "weights"]] = "nothing"
    replays: ClassVar[tuple[Literal["targets", "logits"], ...]] = ("targets",)

    def __init__(self, *, aux: Mapping[str, float] | None = None) -> None:
        super().__init__()
        self.aux = dict(aux or {})
        for word, weight in self.aux.items():
            if not math.isfinite(weight):
                raise ConfigError(f"aux.{word}={weight} is no finite number; give a weight such as 0.01")
        self._reported: frozenset[str] | None = None  # words of earlier outputs; None before the first one

    @abstractmethod
    def compute_parts(self, output: Any, batch: Batch, *, rows: bool = False) -> Parts:
        """Named scalars with "loss", which is minimised; the others are logged.

        With `rows`, also "rows", float64 [2, B] and detached: each row's sum of losses and number of targets. An
        objective whose loss is no sum over rows leaves it out.
        """

    @abstractmethod
    def sum_losses(self, output: Any, batch: Batch) -> Tensor:
        """Sum of losses and number of targets, float64 [2]: short batches of a validation count for what they are."""

    def count_targets(self, batch: Batch) -> Tensor | None:
        """What the loss of a batch is a mean over, on its device; None where the batch's units are.

        Logged means of several micro-batches and ranks are weighted by it.
        """
        return None

    def check_network(self, widths: Sequence[float]) -> None:
        """ConfigError for a network that the objective cannot train; `widths` are those of nested layers."""

    def check_row_targets(self) -> None:
        """ConfigError where the objective cannot be computed of one target for each row, int64 [B]."""

    def list_widths(self, widths: Sequence[float]) -> tuple[float, ...]:
        """Widths of a nested network that are validated beside the network as it is."""
        del widths
        return ()

    def expect_passes(self, widths: Sequence[float]) -> Mapping[float, float]:
        """Forward and backward passes of a step by their width, in the mean, for what a step costs."""
        del widths
        return {FULL: 1.0}

    def expect_forwards(self, widths: Sequence[float]) -> Mapping[float, float]:
        """The same for passes without a backward pass, as of a teacher."""
        del widths
        return {}

    def compute_step(self, passes: Passes, batch: Batch, *, rows: bool = False) -> tuple[Any, Parts]:
        """The output that a training step tells of, and the parts of its micro-batch: of one pass over the network.

        An objective that needs more of the network than one pass does it here.
        """
        output = passes.run()
        return output, self(output, batch, rows=rows)

    def forward(self, output: Any, batch: Batch, *, rows: bool = False) -> Parts:
        """The parts, with the weighted auxiliary losses in "loss" and each unweighted mean as "aux/<word>"."""
        parts = self.compute_parts(output, batch, rows=rows)
        found = group_aux_losses(output)
        self._report_words(frozenset(found))
        for word, values in found.items():
            mean = sum(values[1:], values[0]) / len(values)
            if weight := self.aux.get(word, 0.0):
                parts["loss"] = parts["loss"] + weight * mean
            parts[f"aux/{word}"] = mean
        return parts

    def _report_words(self, words: frozenset[str]) -> None:
        """Say once what is not minimised, and at the first output what weighs nothing."""
        first = self._reported is None
        reported = self._reported or frozenset()
        if not first and words <= reported:
            return
        self._reported = reported | words
        for word in sorted(words - self.aux.keys() - reported):
            log.warning(
                "objective: the layers' loss %s has no weight and is not minimised; give it one, as in "
                "objective.aux={%s: 0.01}, or 0 to leave it so without this line",
                *(word, word),
            )
        for word in sorted(self.aux.keys() - words) if first else ():
            have = ", ".join(sorted(words)) or "none"
            log.warning(
                "objective: aux.%s=%g weighs nothing: no layer of this model has such a loss; there are: %s",
                *(word, self.aux[word], have),
            )


def group_aux_losses(output: Any) -> dict[str, list[Tensor]]:
    """The auxiliary losses of an output by the last word of their names, in the order of the layers."""
    found: dict[str, list[Tensor]] = {}
    # A network of another package may return logits with nothing beside them.
    for name, value in (getattr(output, "aux", None) or {}).items():
        found.setdefault(name.rpartition("/")[2], []).append(value)
    return found
