"""Next-token prediction. Legend: B batch, T tokens, V vocabulary."""

from __future__ import annotations

import math
from typing import Any, Protocol, cast

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR

from aptlab.errors import ConfigError
from aptlab.models import Decoder, Output

Batch = dict[str, Tensor]
IGNORE = -100


class Optim(Protocol):
    def make(self, net: torch.nn.Module, *, unscaled: bool = True) -> torch.optim.Optimizer: ...


class Schedule(Protocol):
    def factor(self, step: int, total: int) -> float: ...


def compute_token_loss(logits_BTV: Tensor, targets_BT: Tensor, reduction: str = "mean") -> Tensor:
    """Cross entropy in nats over the targets that are not -100, in float32."""
    return F.cross_entropy(
        logits_BTV.float().flatten(0, 1), targets_BT.flatten(), ignore_index=IGNORE, reduction=reduction
    )


class LanguageTask(LightningModule):
    """Minimise the cross entropy of the next token.

    Callbacks may set `tracing` to have smoothing statistics in the step's outputs, and `by_row` to have `rows`, a
    float64 [2, B] of every row's sum of losses and number of targets, which stays on the device; the command sets
    `bytes_per_token` (of the validation text) so that losses can be told in bits per byte.
    """

    def __init__(self, net: Decoder, *, optim: Optim, schedule: Schedule, compile: bool = False) -> None:
        super().__init__()
        self.net = net
        self.optim, self.schedule = optim, schedule
        self.compile_net = compile
        self.tracing = self.by_row = False
        self.skipped = False
        self.bytes_per_token = 1.0
        self.grad_norm: Tensor | None = None
        self._nats = torch.zeros(2, dtype=torch.float64)  # sum of losses, number of targets

    def setup(self, stage: str) -> None:
        # Only the inner network: a compiled LightningModule cannot log.
        if self.compile_net:
            self.net.compile()

    def forward(self, batch: Batch, *, trace: bool = False) -> Output:
        return self.net(batch["tokens"], positions=batch.get("positions"), segments=batch.get("segments"), trace=trace)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        self.grad_norm = None
        out = self(batch, trace=self.tracing)
        if not self.by_row:
            return {"loss": compute_token_loss(out.logits, batch["targets"]), "traces": out.traces}
        losses_BT = compute_token_loss(out.logits, batch["targets"], reduction="none").view_as(batch["targets"])
        counted_BT = batch["targets"] != IGNORE
        rows = torch.stack((losses_BT.detach().double().sum(1), counted_BT.double().sum(1)))
        return {"loss": losses_BT.sum() / counted_BT.sum(), "traces": out.traces, "rows": rows}

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the global norm, also of fused optimizers (findings/lightning_bf16_clip_fused.sh).

        A callback may have measured `grad_norm` already; it is not computed twice.
        """
        if not gradient_clip_val:
            return
        weights = [weight for group in optimizer.param_groups for weight in group["params"] if weight.grad is not None]
        if gradient_clip_algorithm == "value":
            torch.nn.utils.clip_grad_value_(weights, gradient_clip_val)
            return
        if self.grad_norm is None:
            self.grad_norm = torch.nn.utils.get_total_norm([weight.grad for weight in weights])  # type: ignore[misc]
        torch.nn.utils.clip_grads_with_norm_(weights, gradient_clip_val, self.grad_norm)

    def on_validation_epoch_start(self) -> None:
        self._nats = torch.zeros(2, dtype=torch.float64, device=self.device)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        loss = compute_token_loss(self(batch).logits, batch["targets"], reduction="sum")
        count = (batch["targets"] != IGNORE).sum()
        self._nats += torch.stack((loss.double(), count.double()))

    def on_validation_epoch_end(self) -> None:
        """Token-weighted over all ranks: a short batch does not count like a full one."""
        sums = cast(Tensor, self.all_gather(self._nats))
        total, count = sums.view(-1, 2).sum(0).tolist()
        loss = total / count if count else math.nan
        values = {
            "val/loss": loss,
            "val/ppl": loss_to_perplexity(loss),
            "val/bpb": loss / math.log(2) / self.bytes_per_token,
        }
        self.log_dict({name: torch.tensor(value) for name, value in values.items()}, logger=False)

    def configure_optimizers(self) -> Any:
        total = self.trainer.max_steps
        if total < 1:
            raise ConfigError(
                f"the trainer has max_steps={total}, and a schedule needs their number; set trainer.max_steps=1 or more"
            )
        optimizer = self.optim.make(self.net, unscaled=self.trainer.precision != "16-mixed")
        scheduler = LambdaLR(optimizer, lambda step: self.schedule.factor(step, total))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def loss_to_perplexity(loss: float) -> float:
    """exp(nats per token); infinite instead of an overflow."""
    return math.exp(loss) if loss < 700 else math.inf
