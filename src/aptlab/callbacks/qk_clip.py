"""Weights of queries and keys that shrink where logits of attention grow. Legend: L layers, H heads, K key heads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from aptlab.callbacks.gradients.base import check_limits
from aptlab.callbacks.monitor import log_numbers
from aptlab.errors import ConfigError, TrainingError
from aptlab.limits import Fraction, Positive, PositiveInt
from aptlab.nn.attention import FullAttention
from aptlab.nn.attention.largest import MAX_LOGITS
from aptlab.nn.block import Block
from aptlab.objectives import get_step_state


class QKClip(Callback):
    """After a step in which a head's largest logit is above tau, its query and key weights shrink to bring it to tau.

        gamma_h = min(1, tau / S_h)      W_q^h <- gamma_h^alpha W_q^h      W_k^h <- gamma_h^(1 - alpha) W_k^h

    S_h is the largest logit scale · q·k of head h over the batch, all micro-batches and ranks (Kimi Team 2025,
    arXiv:2507.20534, algorithm 1: alpha 1/2, tau 100). The source has a key of its own for each head (MLA). Where
    heads share a key (GQA), the key takes the smallest gamma of its heads, to the power 1 - alpha, and each head's
    queries take what is left, so that the logits of every head are multiplied by its own gamma; of heads with keys of
    their own it is the published rule. Biases of queries and keys shrink with the matrices. The moments of the
    optimizer stay as they are.

    It runs in a hook of the optimizer, right after its step: a step that the guard or the loss scaler skips changes
    nothing, and a checkpoint of the step holds the clipped weights. To know S_h costs a second pass over the logits
    without a fused kernel, in every training step. `tau=null` measures and clips nothing. Logs qk_clip/max_logit and
    qk_clip/clipped, the share of heads that were clipped, every `every` optimizer steps.
    ConfigError where no layer has logits, or where queries and keys are normalised, which undoes the scale of weights.
    """

    def __init__(self, *, tau: Positive | None = 100.0, alpha: Fraction = 0.5, every: PositiveInt = 10) -> None:
        check_limits(("tau", tau, Positive), ("alpha", alpha, Fraction), ("every", every, PositiveInt))
        self.tau, self.alpha, self.every = tau, alpha, every
        self._layers: dict[str, FullAttention] = {}
        self._largest_LH: Tensor | None = None
        self._hook: RemovableHandle | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        found = list(find_full_attention(pl_module))
        self._layers = dict(found)
        if len(self._layers) < len(found):
            raise ConfigError(
                "qk_clip: two layers of this network tell of their logits under one name, and only the last would be "
                "clipped; give their sites names of their own, or take qk_clip out of callbacks"
            )
        if not self._layers:
            raise ConfigError("qk_clip needs layers with logits, and this network has none; take it out of callbacks")
        for layer in self._layers.values():
            if self.tau is not None and (layer.qk_norm is not None or layer.layer_positions.norm_after):
                raise ConfigError(
                    f"qk_clip: layer {layer.layer} normalises queries and keys, so that smaller weights give the same "
                    "logits; use attention.qk_norm=false, or tau=null to measure alone"
                )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for layer in self._layers.values():
            layer.measures_logits = True
        self._largest_LH = None

        def clip(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
            del optimizer, args, kwargs
            self._finish_step(trainer, pl_module)

        self._hook = trainer.optimizers[0].register_step_post_hook(clip)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._stop()

    def _stop(self) -> None:
        for layer in self._layers.values():
            layer.measures_logits = False
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        traces: Mapping[str, Any] = get_step_state(pl_module).traces
        if missing := [site for site in self._layers if site not in traces]:
            raise TrainingError(
                f"qk_clip: the step gave no logits of {missing[0]}; the task's training_step must set "
                "self.step_state.traces to output.traces of the net"
            )
        now_LH = torch.stack([traces[site][MAX_LOGITS] for site in self._layers])
        self._largest_LH = now_LH if self._largest_LH is None else torch.maximum(self._largest_LH, now_LH)

    def _finish_step(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Clip by what the step's micro-batches have shown, and forget it."""
        largest_LH, self._largest_LH = self._largest_LH, None
        if largest_LH is None:
            return
        if trainer.world_size > 1:
            dist.all_reduce(largest_LH, op=dist.ReduceOp.MAX)
        skipped = get_step_state(pl_module).skipped
        taken = ~skipped if isinstance(skipped, Tensor) else not skipped  # on the device it is not waited for
        factors_LH = torch.ones_like(largest_LH)
        if self.tau is not None:
            high_LH = (largest_LH > self.tau) & largest_LH.isfinite() & taken
            factors_LH = torch.where(high_LH, self.tau / largest_LH, 1.0)
            for layer, factors_H in zip(self._layers.values(), factors_LH, strict=True):
                scale_heads(layer, factors_H, self.alpha)
        step = trainer.global_step + 1
        if step % self.every == 0:
            clipped = (factors_LH < 1).float().mean()
            numbers = {"qk_clip/max_logit": float(largest_LH.max()), "qk_clip/clipped": float(clipped)}
            log_numbers(trainer, numbers, step)


def find_full_attention(module: nn.Module) -> Iterator[tuple[str, FullAttention]]:
    """Layers with logits by the name under which they tell of them, as "3/attention/qk"; also one inside another."""
    for block in module.modules():
        if isinstance(block, Block):
            for site, layer in block.layers():
                yield from ((f"{site}/qk", part) for part in layer.modules() if isinstance(part, FullAttention))


@torch.no_grad()
def scale_heads(layer: FullAttention, factors_H: Tensor, alpha: float) -> None:
    """Multiply the logits of every head by its factor, by the weights of its queries and of its key."""
    groups_KG = factors_H.unflatten(0, (layer.kv_heads, -1))
    keys_K = groups_KG.amin(1).pow(1 - alpha)
    queries_H = (groups_KG / keys_K.unsqueeze(1)).flatten()
    scale_N = torch.cat((queries_H, keys_K, torch.ones_like(keys_K)))  # heads of the matrix: queries, keys, values
    rows = scale_N.repeat_interleave(layer.head_dim)
    layer.qkv.weight.mul_(rows.unsqueeze(1))
    if layer.qkv.bias is not None:
        layer.qkv.bias.mul_(rows)
