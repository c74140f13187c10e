"""Speculative decoding: a small network drafts tokens, the large one reads them all at once and keeps what it may.

Legend: D drafted tokens of a round, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from aptlab.errors import AptlabError
from aptlab.models import Decoder
from aptlab.sample.logits import BAD, apply_rules, draw_tokens
from aptlab.sample.rules import SamplingRules
from aptlab.sample.seeds import draw_uniform

PURPOSES = DRAFT, ACCEPT, CORRECT = range(3)  # the numbers that each new token has: one draw of each kind at most


@dataclass
class Draft:
    """Who drafts, how much, and how it went.

    net       a network with the sites, heads and vocabulary of the one that it drafts for, as a width of it
    tokens    drafted before the large network reads them
    drafted   tokens so far, accepted ones among them, and passes of the large network after the prompts
    """

    net: Decoder
    tokens: int = 4
    drafted: int = 0
    accepted: int = 0
    passes: int = 0

    def describe(self) -> str:
        """One line: the share of accepted tokens, and new tokens a pass of the large network."""
        if not self.drafted:
            return "nothing drafted"
        written = self.accepted + self.passes
        return (
            f"{self.accepted / self.drafted:.0%} of {self.drafted:,} drafted tokens accepted, "
            f"{written / self.passes:.2f} tokens a pass"
        )


class SpeculativeRow:
    """One text that is being continued by two networks with one cache of keys and values.

    A round: the drafter writes D tokens x_i from q_i, the large network reads them at once and gives p_0 … p_D. In
    turn, x_i is kept with probability min(1, p_i(x_i) / q_i(x_i)); the first that is not is replaced by a draw from
    max(0, p_i - q_i), normed, and ends the round; after D kept ones comes a draw from p_D. What is written has the
    distribution of the large network alone, p and q being those that the sampling rules leave (Leviathan et al. 2023,
    arXiv:2211.17192, algorithm 1; Chen et al. 2023, arXiv:2302.01318, algorithm 2). Greedy rules keep x_i where it is
    the large network's choice.

    The cache is shared, as in MatFormer (arXiv:2310.07707): the drafter reads keys of the large network for all that is
    settled, and its own for what it drafts, which the large network then writes over. So q depends on where a round
    began, and a text on its own seed and rounds alone: rows are written one by one, and in any batch the same.
    """

    def __init__(
        self,
        net: Decoder,
        draft: Draft,
        prompt: Sequence[int],
        rules: SamplingRules,
        *,
        steps: int,
        seed: int,
        vocab: int | None,
        prefix: Tensor | None = None,
    ) -> None:
        check_draft(net, draft, rules)
        self.net, self.draft, self.rules, self.steps, self.seed = net, draft, rules, steps, seed
        self.vocab = min(vocab or net.vocab, net.vocab)
        self.device = net.embed.weight.device
        self.written = 0
        length = steps + len(prompt) + (0 if prefix is None else len(prefix))
        lengths = torch.tensor([length], device=self.device)
        self.cache = net.new_cache(1, length, lengths=lengths, rolling=False)
        self.seen_V: Tensor | None = None
        if rules.repetition_penalty != 1:
            self.seen_V = torch.zeros(self.vocab, dtype=torch.bool, device=self.device)
            self.seen_V[[token for token in prompt if token < self.vocab]] = True
        self.last = prompt[-1]
        self._read_prompt(prompt[:-1], prefix)
        self.cache.truncate(self.cache.length)  # says at once where tokens cannot be taken back

    def _read_prompt(self, prompt: Sequence[int], prefix: Tensor | None) -> None:
        """Fill the cache with the soft tokens in front, if any, and all of the prompt but its last token."""
        tokens_1T = torch.tensor([list(prompt)], dtype=torch.long, device=self.device)
        if prefix is not None:
            embeds_1TC = self.net.embed_tokens(tokens_1T, None)
            self.net(embeds=torch.cat((prefix.to(embeds_1TC).unsqueeze(0), embeds_1TC), 1), cache=self.cache)
        elif prompt:
            self.net(tokens_1T, cache=self.cache)

    def write_round(self) -> list[int]:
        """The next tokens, at least one; BAD among them where logits are no numbers."""
        begin = self.cache.length
        count = min(self.draft.tokens, self.steps - self.written - 1)
        tokens, logits = self._write_draft(count)
        self.cache.truncate(begin)
        target_DV = self._read([self.last, *tokens], tokens)
        kept = verify_draft(self.rules, tokens, logits, target_DV, self._number)
        self.cache.truncate(begin + len(kept))  # the last one is yet to be read
        self.draft.drafted += count
        self.draft.accepted += len(kept) - 1
        self.draft.passes += 1
        self.written += len(kept)
        self.last = max(kept[-1], 0)
        if self.seen_V is not None:
            self.seen_V[[max(token, 0) for token in kept]] = True
        return kept

    def _write_draft(self, count: int) -> tuple[list[int], list[Tensor]]:
        """Tokens of the drafter, and the logits by its rules that each was drawn from, [1, V]."""
        tokens: list[int] = []
        logits: list[Tensor] = []
        for index in range(count):
            read = torch.tensor([[tokens[-1] if tokens else self.last]], device=self.device)
            raw_1V = self.draft.net(read, cache=self.cache).logits[:, -1, : self.vocab]
            logits.append(apply_rules(self.rules, raw_1V, self._mark(tokens, 1)))
            tokens.append(draw_one(self.rules, logits[-1], self._number(index, DRAFT)))
            if tokens[-1] == BAD:
                raise AptlabError("the drafting width's logits are not finite; use another width, or leave draft out")
        return tokens, logits

    def _read(self, read: list[int], drafted: list[int]) -> Tensor:
        """The large network's logits after each token that it reads, by the rules, [D + 1, V]."""
        raw_DV = self.net(torch.tensor([read], device=self.device), cache=self.cache).logits[0, :, : self.vocab]
        return apply_rules(self.rules, raw_DV, self._mark(drafted, len(read)))

    def _mark(self, drafted: list[int], rows: int) -> Tensor | None:
        """Tokens that stand in the text before each of the last `rows` logits, bool [rows, V]."""
        if self.seen_V is None:
            return None
        marks = self.seen_V.repeat(len(drafted) + 1, 1)
        for index, token in enumerate(drafted):
            marks[index + 1 :, token] = True
        return marks[-rows:]

    def _number(self, index: int, purpose: int) -> float:
        """The random number of a token of this round; a draft that is given up has told nothing to what follows."""
        return draw_uniform(self.seed, (self.written + index) * len(PURPOSES) + purpose)


def verify_draft(
    rules: SamplingRules,
    tokens: Sequence[int],
    draft: Sequence[Tensor],
    target_DV: Tensor,
    number: Callable[[int, int], float],
) -> list[int]:
    """The drafted tokens that stay, and one more: the draw of the first that does not, or of the last logits.

    draft   the logits [1, V] that each token was drawn from, by the rules
    target  the large network's logits before each token and after the last, by the rules, [D + 1, V]
    number  (index of the token, ACCEPT or CORRECT) -> its random number in [0, 1)
    """
    for index, token in enumerate(tokens):
        p_1V = target_DV[index : index + 1]
        if rules.greedy:
            if (own := draw_one(rules, p_1V, 0.0)) != token:
                return [*tokens[:index], own]
            continue
        p_V, q_V = p_1V[0].double().softmax(-1), draft[index][0].double().softmax(-1)
        if number(index, ACCEPT) * q_V[token] < p_V[token]:
            continue
        left_V = (p_V - q_V).clamp_min(0)
        rest_1V = (left_V if left_V.any() else p_V).log().unsqueeze(0)
        return [*tokens[:index], draw_one(rules, rest_1V, number(index, CORRECT))]
    return [*tokens, draw_one(rules, target_DV[-1:], number(len(tokens), CORRECT))]


def draw_one(rules: SamplingRules, logits_1V: Tensor, number: float) -> int:
    """The token of one row of logits; BAD where they are no numbers."""
    return int(draw_tokens(rules, logits_1V, torch.tensor([number], dtype=torch.float64, device=logits_1V.device)))


def check_draft(net: Decoder, draft: Draft, rules: SamplingRules) -> None:
    """AptlabError for a drafter that does not fit, and for rules under which tokens cannot be taken back."""
    if draft.tokens < 1:
        raise AptlabError(f"draft_tokens={draft.tokens} must be 1 or more")
    mine, theirs = ((one.vocab, one.shape.depth, one.shape.head_sizes()) for one in (net, draft.net))
    if mine != theirs:
        raise AptlabError(
            f"the drafter has other sizes (vocabulary, blocks, heads: {theirs}) than the network ({mine}), and they "
            "share keys and values; draft with a width of the network"
        )
    if rules.crossing != "admit":
        raise AptlabError(
            f"crossing={rules.crossing} reads a text again or rotates keys; with draft use crossing=admit"
        )
