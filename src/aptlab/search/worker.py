"""What measures in one process: the checkpoint's network and the samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from aptlab.models import Decoder
from aptlab.restore.load import load_network
from aptlab.search.meter import CandidateScorer
from aptlab.search.needles import SearchSample
from aptlab.search.objectives import SearchObjective


@dataclass(frozen=True)
class SearchWorker:
    """Makes the meter of worker `number`; sent to other processes whole, so that all measure the same samples."""

    ckpt: str
    samples: dict[int, list[SearchSample]]
    objective: SearchObjective
    rule_of: Callable[[Sequence[float]], Any]
    device: str
    precision: str

    def __call__(self, number: int) -> CandidateScorer:
        device = f"cuda:{number % torch.cuda.device_count()}" if self.device == "cuda" else self.device
        return self.meter(load_network(self.ckpt).net, device)

    def meter(self, net: Decoder, device: str) -> CandidateScorer:
        """The meter of a network that is there. On the CPU it uses one thread, so that sums have one order."""
        if device == "cpu":
            torch.set_num_threads(1)
        if self.precision == "bf16-true":
            net = net.to(torch.bfloat16)
        return CandidateScorer(
            net,
            self.samples,
            objective=self.objective,
            rule_of=self.rule_of,
            device=device,
            precision=self.precision,
        )
