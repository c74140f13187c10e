"""What one training says of its stability, without waiting for the device before it is over."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from statistics import fmean, median, pstdev
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from aptlab.callbacks.qk_clip import find_full_attention
from aptlab.nn.attention.largest import MAX_LOGITS
from aptlab.nn.smooth.base import Smooth
from aptlab.objectives import get_step_state

FP16, E4M3 = 65504.0, 448.0  # the largest finite numbers of float16 and of float8 e4m3
SIGMAS = 7.0  # above the running mean, from which a loss is a spike
FIRST = 5  # steps whose time is not counted

Numbers = dict[str, float | None]


class StabilityProbe(Callback):
    """Losses, gradient norms, skips and times of all steps, and how large the stream and the logits get.

    The stream is what smoothing sites give, every number of it in training. Must stand after the guard.
    """

    def __init__(self) -> None:
        self.losses: list[Tensor] = []
        self.norms: list[Tensor] = []
        self.skips: list[Tensor] = []
        self.seconds: list[float] = []
        self.peak: Tensor | None = None  # [3]: max |u|, numbers beyond fp16, numbers beyond e4m3
        self.count = 0
        self.logit: Tensor | None = None
        self._begin = 0.0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for module in pl_module.modules():
            if isinstance(module, Smooth):
                module.register_forward_hook(self._watch)
        for _, layer in find_full_attention(pl_module):
            layer.measures_logits = True

    def _watch(self, module: nn.Module, args: Any, output: Tensor) -> None:
        if not module.training:
            return
        size = torch.nan_to_num(output.detach().abs().float(), nan=torch.inf)
        now = torch.stack((size.amax(), (size > FP16).sum().float(), (size > E4M3).sum().float()))
        old = torch.zeros_like(now) if self.peak is None else self.peak
        self.peak = torch.cat((torch.maximum(old[:1], now[:1]), old[1:] + now[1:]))
        self.count += size.numel()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._begin = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        state = get_step_state(pl_module)
        loss = outputs["loss"].detach().float()
        self.losses.append(loss)
        self.norms.append(torch.zeros_like(loss) if state.grad_norm is None else state.grad_norm.float())
        skipped = state.skipped
        self.skips.append(skipped.float() if isinstance(skipped, Tensor) else torch.full_like(loss, float(skipped)))
        found = [trace[MAX_LOGITS].amax() for trace in state.traces.values() if MAX_LOGITS in trace]
        if found:
            now = torch.stack(found).amax()
            self.logit = now if self.logit is None else torch.maximum(self.logit, now)
        self.seconds.append(time.perf_counter() - self._begin)

    def summarize(self, steps: int, *, scaled: bool) -> Numbers:
        """The numbers of a training of `steps` steps; None for what is not finite or was not seen.

        bad      the first step (from 1) with a loss, or without a loss scaler a gradient, that is not finite
        skipped  share of steps that were skipped
        spikes   share of steps whose loss is SIGMAS deviations above its mean over the last min(1000, steps / 5)
        start    the first loss; best: the smallest mean over a tenth of the steps
        """
        losses, norms, skips = (torch.stack(x).tolist() if x else [] for x in (self.losses, self.norms, self.skips))
        bad = find_first_bad(losses, norms, scaled=scaled)
        peak, beyond16, beyond8 = (None, 0.0, 0.0) if self.peak is None else self.peak.tolist()
        wide = max(1, steps // 10)
        means = [fmean(losses[i : i + wide]) for i in range(len(losses) - wide + 1)]
        return {
            "bad": bad,
            "skipped": sum(map(bool, skips)) / max(1, len(skips)),
            "spikes": measure_spikes(losses, max(2, min(1000, steps // 5))),
            "norm_spikes": measure_spikes(norms, max(2, min(1000, steps // 5))),
            "start": keep_finite(losses[0] if losses else None),
            "best": min((mean for mean in means if math.isfinite(mean)), default=None),
            "peak": keep_finite(peak),
            "beyond_fp16": beyond16 / max(1, self.count),
            "beyond_e4m3": beyond8 / max(1, self.count),
            "logit": None if self.logit is None else keep_finite(float(self.logit)),
            "seconds": median(self.seconds[FIRST:]) if len(self.seconds) > FIRST else None,
        }


def find_first_bad(losses: Sequence[float], norms: Sequence[float], *, scaled: bool) -> int | None:
    """The first step, from 1, that broke. A loss scaler finds its scale by gradients that overflow: no break."""
    for step, (loss, norm) in enumerate(zip(losses, norms, strict=True), 1):
        if not math.isfinite(loss) or not (scaled or math.isfinite(norm)):
            return step
    return None


def measure_spikes(values: Sequence[float], window: int) -> float:
    """The share of values at least SIGMAS deviations above the mean of the `window` before them (OLMo 2's measure).

    Values before the window is full are not judged; one that is not finite is a spike, and no part of a mean.
    """
    spikes, judged, before = 0, 0, list[float]()
    for value in values:
        last = before[-window:]
        if len(last) == window:
            judged += 1
            spikes += not math.isfinite(value) or value >= fmean(last) + SIGMAS * max(pstdev(last), 1e-12)
        if math.isfinite(value):
            before.append(value)
    return spikes / judged if judged else 0.0


def keep_finite(value: float | None) -> float | None:
    """The number, or None for one that is not finite, which JSON has no word for."""
    return value if value is not None and math.isfinite(value) else None
