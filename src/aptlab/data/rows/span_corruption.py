"""Spans of a text that are to be found again: which lengths they have. No numpy is loaded until rows are made."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aptlab.data.rows.base import BatchPlan, RowKind, Rows, RowTable, describe_few_rows, describe_short_side
from aptlab.data.rows.span_lengths import SpanLengths
from aptlab.errors import ConfigError, DataError
from aptlab.limits import NonNegativeInt, Positive, PositiveInt, Share, validate_limits

if TYPE_CHECKING:
    from aptlab.data.store.cache import TokenSide
    from aptlab.data.tokenizers import Tokenizer


@dataclass(frozen=True, kw_only=True)
class SpanCorruption(RowKind):
    """Denoising of T5 (Raffel et al. 2020, arXiv:1910.10683, section 3.1.4), with the lengths of its code:

        text     Thank you for inviting me to your party last week
        source   Thank you <0> me to your party <1> week eos
        target   <0> for inviting <1> last eos

    Every `raw` tokens of the stream are a row, so long that its source fills `context`. A share `density` of them is
    noise, in noise / mean_span spans whose lengths, as those of the pieces between them, are a uniform draw of all ways
    to divide the tokens; a text begins with a piece that is kept and ends with a span. Each span is replaced by a
    sentinel of its own. Sentinels are ids behind those of the tokenizer: `<n>` is vocab_size + n. The figure of the
    paper ends the target with one more sentinel; here, as in its code, eos does.

    density    share of tokens that are noise
    mean_span  tokens of a span, in the mean
    sentinels  ids that are added to the vocabulary
    seed       of the spans, with the number of the row: a row has the same in every epoch
    """

    density: Share = 0.15
    mean_span: Positive = 3.0
    sentinels: PositiveInt = 100
    seed: NonNegativeInt = 0
    _ids: tuple[int, int] | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        validate_limits(self)
        if self.density >= 1:
            raise ConfigError(f"density={self.density} leaves no text to find the spans by; published: 0.15")
        if self.mean_span < 1:
            raise ConfigError(f"mean_span={self.mean_span}: a span has a token at least; published: 3")

    def for_tokenizer(self, tokenizer: Tokenizer) -> RowKind:
        """The same, with the first sentinel and eos of this tokenizer."""
        bound = dataclasses.replace(self)
        object.__setattr__(bound, "_ids", (tokenizer.vocab_size, tokenizer.eos))
        return bound

    @property
    def extra_tokens(self) -> int:
        return self.sentinels

    def count_target_tokens(self, context: int) -> int:
        """Tokens of a target."""
        return self.find_lengths(context).target

    def find_lengths(self, context: int) -> SpanLengths:
        """The longest text whose source has `context` tokens; ConfigError where there is none, or too few sentinels."""
        lengths = self._fit_lengths(context)
        if lengths is None:
            near = next((more for more in range(context + 1, context + 99) if self._fit_lengths(more)), 2 * context)
            raise ConfigError(
                f"context={context} holds no source with density={self.density}, mean_span={self.mean_span}; use "
                f"context={near}"
            )
        if lengths.spans > self.sentinels:
            raise ConfigError(
                f"sentinels={self.sentinels} are too few: a row of context={context} has {lengths.spans} spans; use "
                f"sentinels={lengths.spans}"
            )
        return lengths

    def _fit_lengths(self, context: int) -> SpanLengths | None:
        found = None
        for raw in range(2, int(2 * context / (1 - self.density)) + 4):
            noise = min(max(1, round(raw * self.density)), raw - 1)
            spans = min(max(1, round(noise / self.mean_span)), noise, raw - noise)
            if raw - noise + spans + 1 == context:
                found = SpanLengths(raw, noise, spans, context, noise + spans + 1)
        return found

    def make_rows(self, side: TokenSide, *, context: int, plan: BatchPlan) -> Rows:
        from aptlab.data.rows.epochs import EpochRows

        return EpochRows(self._make_table(side, context, "train"), plan, settings=self.settings())

    def make_validation_table(self, side: TokenSide, *, context: int) -> RowTable:
        return self._make_table(side, context, "val")

    def _make_table(self, side: TokenSide, context: int, name: str) -> RowTable:
        from aptlab.data.rows.span_table import SpanTable

        assert self._ids is not None, "for_tokenizer() comes first"
        lengths = self.find_lengths(context)
        if len(side.tokens) < lengths.raw:
            raise DataError(describe_short_side(len(side.tokens), context=context, side=name))
        return SpanTable(side.tokens, lengths, first_sentinel=self._ids[0], eos=self._ids[1], seed=self.seed)

    def find_training_problems(self, context: int) -> Iterator[str]:
        try:
            self.find_lengths(context)
        except ConfigError as error:
            yield str(error)

    def find_size_problems(self, tokens: int, *, context: int, plan: BatchPlan) -> Iterator[str]:
        rows = tokens // self.find_lengths(context).raw
        if rows < 1:
            yield describe_short_side(tokens, context=context, side="train")
        elif rows < plan.global_batch:
            yield describe_few_rows(rows, context=context, plan=plan)

    def settings(self) -> Mapping[str, Any]:
        values = {"density": self.density, "mean_span": self.mean_span, "sentinels": self.sentinels, "seed": self.seed}
        return {f"spans_{name}": value for name, value in values.items()}
