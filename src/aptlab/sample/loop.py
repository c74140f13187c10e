"""Continue token rows with a decoder. Legend: B rows, T tokens, V vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from aptlab.errors import AptlabError
from aptlab.models import Decoder
from aptlab.sample.crossing import RowLengths
from aptlab.sample.logits import BAD, apply_rules, draw_tokens
from aptlab.sample.prefix import (
    Prefixes,
    check_prefixes,
    count_soft_tokens,
    embed_with_prefixes,
    reserve_places,
)
from aptlab.sample.rules import SamplingRules
from aptlab.sample.seeds import draw_uniform
from aptlab.sample.speculative import Draft, SpeculativeRow

OnToken = Callable[[int, int], bool | None]


@dataclass
class GeneratedRow:
    """New tokens of one prompt, and why they end: "eos", "stop" (`on_token` said so), "length" or "interrupted"."""

    tokens: list[int] = field(default_factory=list)
    reason: str | None = None


def generate_tokens(
    net: Decoder,
    prompts: Sequence[Sequence[int]],
    *,
    rules: SamplingRules,
    max_new_tokens: int,
    eos: int | Collection[int] | None,
    seed: int | Sequence[int] = 0,
    on_token: OnToken | None = None,
    vocab: int | None = None,
    draft: Draft | None = None,
) -> list[list[int]]:
    """The new tokens of each prompt, without the prompt and without the one that ends it; see `generate_rows`."""
    rows = generate_rows(
        net,
        prompts,
        rules=rules,
        max_new_tokens=max_new_tokens,
        eos=eos,
        seed=seed,
        on_token=on_token,
        vocab=vocab,
        draft=draft,
    )
    return [row.tokens for row in rows]


@torch.inference_mode()
def generate_rows(
    net: Decoder,
    prompts: Sequence[Sequence[int]],
    *,
    rules: SamplingRules,
    max_new_tokens: int,
    eos: int | Collection[int] | None,
    seed: int | Sequence[int] = 0,
    on_token: OnToken | None = None,
    vocab: int | None = None,
    draft: Draft | None = None,
    prefixes: Prefixes | None = None,
) -> list[GeneratedRow]:
    """Read all prompts at once, then write one token per row and step, with keys and values kept.

    eos       the id that ends a row, or several such ids
    seed      one for all rows, or one per row. Row and step decide the random number together with it, so a row's
              text is the same in any batch; equal prompts need different seeds to differ
    on_token  called with (row, token) for every new token but those of eos; true ends the row
    vocab     ids from here on are never chosen: rows that only pad the embedding
    draft     a smaller network that drafts tokens for this one: the same distribution in fewer passes of it, one row
              after the other (`SpeculativeRow`)
    prefixes  soft tokens [P, C] in front of each prompt, None = none. They take the first positions and the prompt the
              next ones, so that its own tokens are as far from each other as before

    Prompts of different lengths are padded on the left; pads are in segment 0, and positions begin at the first
    real token. A keyboard interrupt ends all rows where they are. Dropout is off.
    Raises AptlabError for prompts that cannot be continued and for logits that are not numbers.
    """
    prefixes = check_prefixes(prefixes, prompts, net)
    check_prompts(prompts, net, max_new_tokens)
    if any(map(count_soft_tokens, prefixes)):
        check_prompts(reserve_places(prompts, prefixes), net, max_new_tokens)
    rows = [GeneratedRow() for _ in prompts]
    seeds = [seed] * len(rows) if isinstance(seed, int) else list(seed)
    if len(seeds) != len(rows):
        raise AptlabError(f"{len(seeds)} seeds for {len(rows)} prompts; give one seed, or one per prompt")
    ends = frozenset([eos] if isinstance(eos, int) else eos or ())
    mode = net.training
    net.eval()
    try:
        if rows and max_new_tokens and draft is None:
            decoding = DecodingBatch(net, prompts, rules, max_new_tokens, vocab, prefixes)
            decode_rows(decoding, rows, seeds, ends, on_token)
        if draft is not None and max_new_tokens:
            for index, (row, prompt, prefix) in enumerate(zip(rows, prompts, prefixes, strict=True)):
                sizes: dict[str, Any] = {"steps": max_new_tokens, "seed": seeds[index], "vocab": vocab}
                drafting = SpeculativeRow(net, draft, prompt, rules, prefix=prefix, **sizes)
                decode_drafted_row(drafting, row, index, ends, on_token)
    except KeyboardInterrupt:
        for row in rows:
            row.reason = row.reason or "interrupted"
    finally:
        net.train(mode)
    for row in rows:
        row.reason = row.reason or "length"
    return rows


def decode_rows(
    decoding: DecodingBatch, rows: list[GeneratedRow], seeds: list[int], ends: frozenset[int], on_token: OnToken | None
) -> None:
    """Fill `rows` until each has ended; ended rows go on in the batch, unread, so that shapes stay as they are."""
    for step in range(decoding.steps):
        tokens = decoding.choose([draw_uniform(seed, step) for seed in seeds])
        for index, (row, token) in enumerate(zip(rows, tokens, strict=True)):
            if row.reason is None:
                take_token(row, index, token, step, ends, on_token)
        if step + 1 == decoding.steps or all(row.reason for row in rows):
            return
        decoding.feed()


def decode_drafted_row(
    decoding: SpeculativeRow, row: GeneratedRow, index: int, ends: frozenset[int], on_token: OnToken | None
) -> None:
    """Fill a row until it has ended; what a round wrote beyond its end counts for nothing."""
    while row.reason is None and decoding.written < decoding.steps:
        begun = decoding.written
        for step, token in enumerate(decoding.write_round(), begun):
            if row.reason is None:
                take_token(row, index, token, step, ends, on_token)


def take_token(
    row: GeneratedRow, index: int, token: int, step: int, ends: frozenset[int], on_token: OnToken | None
) -> None:
    """Add a token to its row, or end the row. AptlabError for BAD, which no logits give."""
    if token == BAD:
        raise AptlabError(
            f"the model's logits are not finite after {step} new tokens; was its training broken off by non-finite "
            "losses? Use an earlier checkpoint"
        )
    if token in ends:
        row.reason = "eos"
        return
    row.tokens.append(token)
    if on_token is not None and on_token(index, token):
        row.reason = "stop"


class DecodingBatch:
    """Cache, positions and last logits of a batch that is being continued."""

    def __init__(
        self,
        net: Decoder,
        prompts: Sequence[Sequence[int]],
        rules: SamplingRules,
        steps: int,
        vocab: int | None,
        prefixes: Prefixes | None = None,
    ) -> None:
        prefixes = check_prefixes(prefixes, prompts, net)
        self.net, self.rules, self.steps, self.prefixes = net, rules, steps, prefixes
        self.vocab = min(vocab or net.vocab, net.vocab)
        device = net.embed.weight.device
        placed = reserve_places(prompts, prefixes)
        longest = max(map(len, placed))
        tokens_BT, pads_B1 = pad_left(placed, longest, device)
        self.padded = any(len(row) != longest for row in placed)
        self.pads_B1, self.chosen_B = pads_B1, tokens_BT[:, -1]
        self.tokens_BT = tokens_BT
        sizes_B = torch.tensor([len(row) for row in placed], device=device)
        self.lengths = RowLengths(net, rules.crossing, sizes_B, steps)
        self.cache = net.new_cache(len(prompts), longest + steps, lengths=self.lengths.told_B)
        self.seen_BV: Tensor | None = None
        if rules.repetition_penalty != 1:
            # What begins a target is no token of it.
            written = [[] for _ in prompts] if getattr(net, "reads_source", False) else prompts
            self.seen_BV = mark_seen_tokens(written, self.vocab, device)
        self.logits_BV = self._read()

    def _read(self) -> Tensor:
        """Read all tokens so far into an empty cache; logits after the last."""
        places_T = torch.arange(self.tokens_BT.shape[1], device=self.tokens_BT.device)
        return self._forward(
            self.tokens_BT,
            positions=(places_T - self.pads_B1).clamp_min(0) if self.padded else None,
            segments=(places_T >= self.pads_B1).long() if self.padded else None,
        )

    def _forward(self, tokens_BT: Tensor, *, positions: Tensor | None, segments: Tensor | None = None) -> Tensor:
        if self.cache.length or not any(map(count_soft_tokens, self.prefixes)):
            out = self.net(tokens_BT, positions=positions, segments=segments, cache=self.cache)
        else:
            embeds_BTC = embed_with_prefixes(self.net, tokens_BT, self.prefixes, self.pads_B1)
            out = self.net(embeds=embeds_BTC, positions=positions, segments=segments, cache=self.cache)
        return out.logits[:, -1, : self.vocab]

    def choose(self, numbers: list[float]) -> list[int]:
        """The next token of each row from its number in [0, 1)."""
        uniform_B = torch.tensor(numbers, dtype=torch.float64, device=self.logits_BV.device)
        self.chosen_B = draw_tokens(self.rules, apply_rules(self.rules, self.logits_BV, self.seen_BV), uniform_B)
        return self.chosen_B.tolist()

    def feed(self) -> None:
        """Read the chosen tokens."""
        tokens_B1 = self.chosen_B.clamp_min(0).unsqueeze(1)  # an ended row may hold BAD
        if self.seen_BV is not None:
            self.seen_BV.scatter_(1, tokens_B1, True)
        if self.lengths.crossing != "admit":
            self.tokens_BT = torch.cat((self.tokens_BT, tokens_B1), dim=1)
            if self.lengths.grow(self.cache):
                self.logits_BV = self._read()
                return
        self.logits_BV = self._forward(tokens_B1, positions=self.cache.length - self.pads_B1 if self.padded else None)


def pad_left(prompts: Sequence[Sequence[int]], longest: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Tokens int64 [B, T] with zeros in front, and the number of these, [B, 1]."""
    padded = [[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
    pads = [[longest - len(prompt)] for prompt in prompts]
    return torch.tensor(padded, device=device), torch.tensor(pads, device=device)


def mark_seen_tokens(prompts: Sequence[Sequence[int]], vocab: int, device: torch.device) -> Tensor:
    """Which tokens each prompt contains, bool [B, V]; pads count for nothing."""
    seen_BV = torch.zeros(len(prompts), vocab, dtype=torch.bool)
    for row, prompt in zip(seen_BV, prompts, strict=True):
        row[[token for token in prompt if token < vocab]] = True
    return seen_BV.to(device)


def check_prompts(prompts: Sequence[Sequence[int]], net: Decoder, max_new_tokens: int) -> None:
    """AptlabError for what cannot be continued."""
    if max_new_tokens < 0:
        raise AptlabError(f"max_new_tokens={max_new_tokens} must be 0 or more")
    for number, prompt in enumerate(prompts):
        if not prompt:
            raise AptlabError(f"prompt {number} has no token; begin a new text with the end-of-text token")
        wrong = [token for token in prompt if not 0 <= token < net.vocab]
        if wrong:
            raise AptlabError(
                f"prompt {number} holds token {wrong[0]} and the model knows 0 to {net.vocab - 1}; "
                "encode it with the tokenizer of the model"
            )
        if len(prompt) + max_new_tokens > net.max_positions:
            raise AptlabError(
                f"prompt {number} has {len(prompt)} tokens, with max_new_tokens={max_new_tokens} more than the "
                f"{net.max_positions} positions that the model has; shorten one of them"
            )
