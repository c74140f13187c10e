"""Beam search: the likeliest target that a search of fixed width finds.

Legend: B sources, K hypotheses of each, V vocabulary, T tokens so far.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from aptlab.errors import AptlabError, ConfigError
from aptlab.limits import NonNegative, PositiveInt, validate_limits
from aptlab.models import EncoderDecoder
from aptlab.nn.attention.cache import KVCache
from aptlab.sample.conditioned import ConditionedDecoder


@dataclass(frozen=True, kw_only=True)
class BeamRule:
    """Width of a search, and what a hypothesis is worth: ln p(target) / tokens^length_penalty, eos counted.

    beams           hypotheses that are kept of each source; 1 takes the likeliest token each time
    length_penalty  0 = the probability itself, which favours short targets; 1 = the mean per token

    The normalisation is that of fairseq and transformers; Wu et al. 2016 (arXiv:1609.08144, eq. 14) use
    ((5 + tokens) / 6)^length_penalty.
    """

    beams: PositiveInt = 4
    length_penalty: NonNegative = 1.0

    def __post_init__(self) -> None:
        validate_limits(self)

    def score(self, log_probability: float, tokens: int) -> float:
        """What a finished hypothesis of so many tokens is worth."""
        return log_probability / tokens**self.length_penalty


@dataclass(frozen=True)
class Hypothesis:
    """A target without its eos, ln p of it with eos, its worth, and whether an eos ended it."""

    tokens: list[int]
    log_probability: float
    score: float
    ended: bool


@dataclass
class SourceSearch:
    """The finished hypotheses of one source, the best `beams` of them; `done` when no running one can enter."""

    rule: BeamRule
    finished: list[Hypothesis] = field(default_factory=list)
    done: bool = False

    def add(self, tokens: list[int], log_probability: float, *, ended: bool) -> None:
        """Keep a hypothesis if it is among the best."""
        score = self.rule.score(log_probability, max(1, len(tokens) + ended))
        self.finished.append(Hypothesis(tokens, log_probability, score, ended))
        self.finished.sort(key=lambda found: -found.score)
        del self.finished[self.rule.beams :]

    def close(self, best_running: float, longest: int) -> None:
        """End the search where the best running hypothesis cannot be worth more than the worst that is kept.

        ln p only falls, and what it is divided by is largest at `longest` tokens: no bound is guessed.
        """
        full, beams = len(self.finished) == self.rule.beams, self.rule.beams
        beaten = full and (beams == 1 or self.rule.score(best_running, longest) <= self.finished[-1].score)
        self.done = self.done or beaten


@torch.inference_mode()
def search_beams(
    net: EncoderDecoder,
    sources: Sequence[Sequence[int]],
    *,
    rule: BeamRule,
    start: int,
    max_new_tokens: int,
    eos: int | Collection[int],
    vocab: int | None = None,
    cached: bool = True,
) -> list[list[Hypothesis]]:
    """The hypotheses that were found for each source, best first, `rule.beams` at most.

    start   the token before every target
    eos     the id that ends a target, or several
    vocab   ids from here on are never chosen
    cached  keep keys and values of earlier tokens; without, every step reads all tokens again: the same targets

    What has not ended after `max_new_tokens` counts as it is. Dropout is off.
    """
    if max_new_tokens < 1:
        raise ConfigError(f"max_new_tokens={max_new_tokens} must be 1 or more")
    mode = net.training
    net.eval()
    try:
        search = BeamSearch(net, sources, rule, start=start, steps=max_new_tokens, cached=cached)
        search.run(sorted({eos} if isinstance(eos, int) else set(eos)), vocab or net.vocab)
    finally:
        net.train(mode)
    return [found.finished for found in search.searches]


class BeamSearch:
    """The running hypotheses of all sources as one batch of B · K rows, those of a source side by side."""

    def __init__(
        self,
        net: EncoderDecoder,
        sources: Sequence[Sequence[int]],
        rule: BeamRule,
        *,
        start: int,
        steps: int,
        cached: bool,
    ) -> None:
        self.rule, self.steps, rows = rule, steps, len(sources) * rule.beams
        self.net = ConditionedDecoder(net, sources, copies=rule.beams)
        if 1 + steps > self.net.max_positions:
            raise AptlabError(
                f"max_new_tokens={steps} is more than the {self.net.max_positions} positions that the model has"
            )
        self.device = net.embed.weight.device
        self.searches = [SourceSearch(rule) for _ in sources]
        self.tokens_RT = torch.full((rows, 1), start, device=self.device)
        lengths_R = torch.full((rows,), 1 + steps, device=self.device)
        self.cache: KVCache | None = self.net.new_cache(rows, 1 + steps, lengths=lengths_R) if cached else None
        self.scores_BK = torch.full((len(sources), rule.beams), -torch.inf, dtype=torch.float64, device=self.device)
        self.scores_BK[:, 0] = 0.0  # all hypotheses are the same one at the start

    def run(self, ends: Sequence[int], vocab: int) -> None:
        """Search until every source is done, or its targets are as long as they may be."""
        ends_E = torch.tensor(ends, device=self.device)
        for step in range(1, self.steps + 1):
            self.extend(self.read(vocab), ends_E)
            if step == self.steps:
                self.keep_unfinished()
            if all(search.done for search in self.searches):
                return

    def read(self, vocab: int) -> Tensor:
        """ln p of every next token, float64 [B, K, V]."""
        given = self.tokens_RT if self.cache is None else self.tokens_RT[:, -1:]
        logits_RV = self.net(given, cache=self.cache).logits[:, -1, :vocab]
        if not logits_RV.isfinite().all():
            raise AptlabError(
                f"the model's logits are not finite after {self.tokens_RT.shape[1] - 1} new tokens; was its training "
                "broken off by non-finite losses? Use an earlier checkpoint"
            )
        return logits_RV.double().log_softmax(-1).unflatten(0, self.scores_BK.shape)

    def extend(self, logp_BKV: Tensor, ends_E: Tensor) -> None:
        """Finish hypotheses that end, and go on with the best others."""
        beams, vocab = self.rule.beams, logp_BKV.shape[-1]
        totals_BKV = self.scores_BK.unsqueeze(-1) + logp_BKV
        for source, search in enumerate(self.searches):
            if not search.done:
                self.finish_ended(source, totals_BKV[source], ends_E)
        totals_BKV[:, :, ends_E] = -torch.inf
        self.scores_BK, places_BK = totals_BKV.flatten(1).topk(beams, dim=1)
        first_B1 = torch.arange(len(self.searches), device=self.device).unsqueeze(1) * beams
        rows_R = (first_B1 + places_BK // vocab).flatten()
        self.tokens_RT = torch.cat((self.tokens_RT[rows_R], (places_BK % vocab).view(-1, 1)), dim=1)
        if self.cache is not None:
            self.cache.select_rows(rows_R)
        for search, best in zip(self.searches, self.scores_BK[:, 0].tolist(), strict=True):
            search.close(best, self.steps)

    def finish_ended(self, source: int, totals_KV: Tensor, ends_E: Tensor) -> None:
        """Keep the hypotheses of a source that end here and are among the best `beams` of all that go on or end.

        A hypothesis that would not have been kept running does not count as finished either.
        """
        kept = totals_KV.flatten().topk(min(self.rule.beams, totals_KV.numel())).values[-1]
        for row, token in ((totals_KV[:, ends_E] >= kept) & totals_KV[:, ends_E].isfinite()).nonzero().tolist():
            tokens = self.tokens_RT[source * self.rule.beams + row, 1:].tolist()
            self.searches[source].add(tokens, float(totals_KV[row, ends_E[token]]), ended=True)

    def keep_unfinished(self) -> None:
        """Count hypotheses that reached the longest length."""
        for source, search in enumerate(self.searches):
            for row, score in enumerate(self.scores_BK[source].tolist() if not search.done else ()):
                if score > -float("inf"):
                    search.add(self.tokens_RT[source * self.rule.beams + row, 1:].tolist(), score, ended=False)
            search.done = True
