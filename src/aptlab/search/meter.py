"""The losses of candidates on one network. Legend: B samples, T tokens, V vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from aptlab.evals.scoring.lengths import ELSEWHERE, LOGITS, TOKENS, make_autocast
from aptlab.models import Decoder
from aptlab.objectives import compute_token_nll
from aptlab.search.evaluation_cache import SearchJob, Values
from aptlab.search.needles import SearchSample
from aptlab.search.objectives import SearchObjective


class CandidateScorer:
    """Measures rules and candidates on one network, whose rotation it exchanges in place.

    samples  by their length; `rule_of` turns factors into a position rule
    Leaves the network in eval mode, with the last rule in it.
    """

    def __init__(
        self,
        net: Decoder,
        samples: Mapping[int, Sequence[SearchSample]],
        *,
        objective: SearchObjective,
        rule_of: Callable[[Sequence[float]], Any],
        device: torch.device | str = "cpu",
        precision: str = "32-true",
    ) -> None:
        self.net, self.samples, self.objective, self.rule_of = net.to(device).eval(), samples, objective, rule_of
        self.device, self.precision = torch.device(device), precision

    def __call__(self, job: SearchJob) -> Values:
        """The objective of the job's factors on each of its samples."""
        pairs = self.losses(self.rule_of(job.factors), job.length, job.samples)
        return tuple(self.objective.value(answer, text) for answer, text in pairs)

    def losses(self, rule: Any, length: int, numbers: Sequence[int]) -> list[tuple[float, float]]:
        """Mean loss of answer and of plain text on each sample, in nats; 0 where a sample has no such token."""
        self.net.swap_rope(rule)
        chosen = [self.samples[length][number] for number in numbers]
        rows = max(1, min(TOKENS.get(self.device.type, ELSEWHERE), LOGITS // self.net.vocab) // length)
        found: list[tuple[float, float]] = []
        with torch.inference_mode(), make_autocast(self.device, self.precision):
            for first in range(0, len(chosen), rows):
                found += self._batch(chosen[first : first + rows])
        return found

    def _batch(self, batch: Sequence[SearchSample]) -> list[tuple[float, float]]:
        tokens_BT, positions_BT = (
            torch.stack([torch.from_numpy(getattr(sample, name)) for sample in batch]).to(self.device)
            for name in ("tokens", "positions")
        )
        nats_BT = compute_token_nats(self.net, tokens_BT, positions_BT).cpu()
        return [split_losses(sample, nats_T) for sample, nats_T in zip(batch, nats_BT, strict=True)]


def split_losses(sample: SearchSample, nats_T: Tensor) -> tuple[float, float]:
    """Mean losses of the answer and of the plain text; nats_T[t] is the loss of token t, 0 for the first.

    A short sample may have no plain text far out. Its 0 is the same for every candidate, so it ranks none.
    """
    text = torch.from_numpy(sample.text).clone()
    text[0] = False
    answer = float(nats_T[sample.answer].mean()) if sample.answer is not None else 0.0
    return answer, float(nats_T[text].mean()) if text.any() else 0.0


def compute_token_nats(net: Decoder, tokens_BT: Tensor, positions_BT: Tensor) -> Tensor:
    """-ln p of every token given those before it, float64 [B, T], 0 for the first.

    Where the logits of all tokens would not fit in memory, the text is read in pieces through the cache; positions
    tell the rules how long the sequence is, as they do without a cache.
    """
    rows, length = tokens_BT.shape
    piece = max(1, LOGITS // net.vocab // rows)
    lengths_B = positions_BT.amax(-1) + 1
    cache = net.new_cache(rows, length, lengths=lengths_B) if piece < length else None
    parts = [tokens_BT.new_zeros(rows, 1, dtype=torch.float64)]
    for begin in range(0, length, piece):
        end = min(begin + piece, length)
        logits_BTV = net(tokens_BT[:, begin:end], positions=positions_BT[:, begin:end], cache=cache).logits
        targets_BT = tokens_BT[:, begin + 1 : end + 1]
        parts.append(compute_token_nll(logits_BTV[:, : targets_BT.shape[1]], targets_BT, "none").double())
    return torch.cat(parts, dim=1)
