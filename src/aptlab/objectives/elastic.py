"""Training several widths of one nested network. Legend: B batch, T tokens, V vocabulary."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from aptlab.errors import ConfigError
from aptlab.limits import Fraction, NonNegativeInt
from aptlab.nn.width import FULL
from aptlab.objectives.base import Batch, Objective, Parts
from aptlab.objectives.next_token import NextToken
from aptlab.objectives.passes import Passes
from aptlab.objectives.perplexity import IGNORE
from aptlab.objectives.widths import SumWidths, WidthStrategy, draw_share


class Elastic(Objective):
    """The loss of several widths of one nested network (ffn=matformer) on each micro-batch, before one optimizer step.

    loss          what each width is trained for; None = the next token
    strategy      which widths a step runs and what they weigh; None = all, added up, as published
    distillation  share a of what a smaller width minimises that is no label but the full width's own prediction, of
                  the same step and without a gradient to it: (1 - a) · loss + a · KL(p_full || p_width), in nats a
                  target. 1 is the in-place distillation of Yu & Huang 2019 (arXiv:1903.05134)
    seed          of the strategy's draws: a step's widths follow from seed and step alone, the same on every rank, in
                  all of its micro-batches and after a resume

    All widths of a step keep their activations until its backward pass. A part "loss@0.5" is told of every width that
    each step runs. Validation measures all widths. Raises ConfigError for a network of one width.
    """

    def __init__(
        self,
        *,
        loss: Objective | None = None,
        strategy: WidthStrategy | None = None,
        distillation: Fraction = 0.0,
        seed: NonNegativeInt = 0,
    ) -> None:
        super().__init__()
        self.loss, self.strategy = loss or NextToken(), strategy or SumWidths()
        self.distillation, self.seed = distillation, seed
        self.needs = self.loss.needs
        # What is kept of earlier tasks is kept of the whole network: a width has nothing to compare with.
        if self.loss.remembers != "nothing" or "logits" in self.loss.replays:
            raise ConfigError(
                f"loss={type(self.loss).__name__} compares with what the whole network kept of earlier tasks, and "
                "Elastic trains its widths one by one; use a loss that keeps nothing (NextToken, CrossEntropy), and "
                "replay=reservoir to rehearse earlier tasks at every width"
            )
        if distillation and self.loss.needs != "logits":
            raise ConfigError(
                f"distillation={distillation:g} compares logits, and {type(self.loss).__name__} is computed without "
                "them; use distillation=0"
            )

    def check_network(self, widths: Sequence[float]) -> None:
        """ConfigError for a network of one width, and for probabilities that are not one for each width."""
        if len(widths) < 2:
            raise ConfigError(
                "Elastic trains several widths of one network, and this network has one; choose ffn=matformer, or "
                "objective=next_token (of classes: cross_entropy)"
            )
        self.strategy.expect_passes(widths)

    def check_row_targets(self) -> None:
        """As `loss` says."""
        self.loss.check_row_targets()

    def list_widths(self, widths: Sequence[float]) -> tuple[float, ...]:
        """All widths of the network."""
        return tuple(widths)

    def expect_passes(self, widths: Sequence[float]) -> Mapping[float, float]:
        """As the strategy says."""
        return self.strategy.expect_passes(widths)

    def expect_forwards(self, widths: Sequence[float]) -> Mapping[float, float]:
        """The full width as a teacher, in steps that do not train it."""
        return {FULL: 1 - self.strategy.expect_passes(widths)[FULL]} if self.distillation else {}

    def compute_step(self, passes: Passes, batch: Batch, *, rows: bool = False) -> tuple[Any, Parts]:
        """The output of the largest width of the step, and the parts: "loss" over all of them."""
        draw = functools.partial(self._draw, passes)
        chosen = self.strategy.choose_widths(passes.widths, draw)
        told = {width for width, times in self.strategy.expect_passes(passes.widths).items() if times == 1}
        weight, teacher, largest = self.strategy.weigh_loss(len(chosen)), self._teach(passes, chosen), None
        losses: list[Tensor] = []
        parts: Parts = {}
        for width in chosen:
            output = passes.run(width=width)
            found = self.loss(output, batch, rows=rows and not losses)
            loss = found.pop("loss")
            if not losses:
                largest, parts = output, found
                teacher = output.logits.detach() if self.distillation and width == FULL else teacher
            if width in told:
                parts[f"loss@{width:g}"] = loss.detach()
            if teacher is not None and width != FULL:
                part = compute_prediction_divergence(teacher, output.logits, batch["targets"])
                loss = (1 - self.distillation) * loss + self.distillation * part
            losses.append(weight * loss)
        return largest, {"loss": sum(losses[1:], losses[0]), **parts}

    def _draw(self, passes: Passes, index: int) -> float:
        return draw_share(self.seed, passes.step, index)

    def _teach(self, passes: Passes, chosen: Sequence[float]) -> Tensor | None:
        """Logits of the full width where it teaches and the step does not run it."""
        if not self.distillation or FULL in chosen:
            return None
        with torch.no_grad():
            return passes.run(width=FULL).logits

    def forward(self, output: Any, batch: Batch, *, rows: bool = False) -> Parts:
        """The parts of one output, those of `loss`."""
        return self.loss(output, batch, rows=rows)

    def compute_parts(self, output: Any, batch: Batch, *, rows: bool = False) -> Parts:
        """Those of `loss`, without auxiliary losses."""
        return self.loss.compute_parts(output, batch, rows=rows)

    def count_targets(self, batch: Batch) -> Tensor | None:
        """Those of `loss`."""
        return self.loss.count_targets(batch)

    def sum_losses(self, output: Any, batch: Batch) -> Tensor:
        """Those of `loss`, for one output."""
        return self.loss.sum_losses(output, batch)


def compute_prediction_divergence(teacher_BTV: Tensor, logits_BTV: Tensor, targets_BT: Tensor) -> Tensor:
    """Mean over targets that count of KL(p || q) = sum p (ln p - ln q), p the teacher's, in float32 and nats."""
    counted_BT = targets_BT != IGNORE
    log_p = teacher_BTV[counted_BT].float().log_softmax(-1)
    log_q = logits_BTV[counted_BT].float().log_softmax(-1)
    return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
