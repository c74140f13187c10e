"""Write targets for sources: texts in, texts out, by an encoder-decoder. torch is loaded by writing one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aptlab.data.tokenizers import TextStream, Tokenizer
from aptlab.errors import AptlabError, ConfigError
from aptlab.limits import NonNegative, PositiveInt, validate_limits
from aptlab.sample.rules import SamplingRules
from aptlab.sample.stop import StopText, cut_at_stop
from aptlab.sample.texts import GeneratedText, GrowingText, OnText, Prompt, bind_index

if TYPE_CHECKING:
    from aptlab.models import EncoderDecoder

MARK = re.compile(r"<extra_id_(\d{1,9})>")  # as T5 writes them


@dataclass(frozen=True, kw_only=True)
class TargetOptions:
    """How targets are written.

    rules           of sampling, where there is no beam search
    max_new_tokens  of a target, eos not counted
    batch           targets written at the same time
    stop            strings that end a target
    beams           hypotheses of a beam search (`BeamRule`); 1 = none, and `rules` choose each token
    length_penalty  of the search
    """

    rules: SamplingRules
    max_new_tokens: PositiveInt = 200
    batch: PositiveInt = 16
    stop: Sequence[str] = ()
    beams: PositiveInt = 1
    length_penalty: NonNegative = 1.0

    def __post_init__(self) -> None:
        validate_limits(self)


@dataclass(frozen=True)
class SourceCodec:
    """Sources to ids and targets back, with sentinels of span corruption as `<extra_id_0>` in the text.

    sentinels  ids behind those of the tokenizer that are sentinels; 0 = none, and such text is ordinary text
    """

    tokenizer: Tokenizer
    sentinels: int = 0

    @property
    def vocab(self) -> int:
        """Ids that a target may hold."""
        return self.tokenizer.vocab_size + self.sentinels

    def encode_source(self, source: Prompt) -> list[int]:
        """Ids of a source and eos behind them. AptlabError for messages of a chat, and for no text."""
        if not isinstance(source, str):
            raise AptlabError(
                "an encoder-decoder reads a text, not messages of a chat; give prompt=…, without chat=true"
            )
        if not source:
            raise AptlabError("there is no source to read; give one with prompt=…, or prompts_file=…")
        parts = MARK.split(source) if self.sentinels else [source]
        ids = self.tokenizer.encode(parts[0])
        for mark, text in zip(parts[1::2], parts[2::2], strict=True):
            if int(mark) >= self.sentinels:
                raise AptlabError(f"<extra_id_{mark}>: the model has the sentinels 0 to {self.sentinels - 1}")
            ids += [self.tokenizer.vocab_size + int(mark), *self.tokenizer.encode(text)]
        return [*ids, self.tokenizer.eos]

    def decode_target(self, ids: Sequence[int]) -> str:
        """The text of a target."""
        stream = SentinelStream(self.tokenizer)
        return "".join([*map(stream.push, ids), stream.finish()])


class SentinelStream(TextStream):
    """`TextStream` of targets that may hold sentinels."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer, self._inner = tokenizer, tokenizer.stream()

    def push(self, token: int) -> str:
        if token < self._tokenizer.vocab_size:
            return self._inner.push(token)
        before, self._inner = self._inner.finish(), self._tokenizer.stream()
        return f"{before}<extra_id_{token - self._tokenizer.vocab_size}>"

    def finish(self) -> str:
        return self._inner.finish()


def make_source_codec(tokenizer: Tokenizer, config: Mapping[str, Any]) -> SourceCodec:
    """The codec of a trained configuration, whose rows say how many sentinels there are."""
    rows = (config.get("data") or {}).get("rows") or {}
    return SourceCodec(tokenizer, int(rows.get("sentinels") or 0))


def generate_targets(
    net: EncoderDecoder,
    codec: SourceCodec,
    sources: Sequence[Prompt],
    *,
    options: TargetOptions,
    seeds: Sequence[int],
    on_text: OnText | None = None,
) -> Iterator[GeneratedText]:
    """The target of each source, in their order; `prompt` is the source, and `text` the target alone.

    seeds    one per source; a beam search uses none
    on_text  called with (index of the source, new characters) while a target is being written; by a beam search once
    """
    if len(seeds) != len(sources):
        raise AptlabError(f"{len(seeds)} seeds for {len(sources)} sources; give one seed per source")
    if options.beams > 1 and len(set(sources)) < len(sources):
        raise ConfigError(f"beams={options.beams} finds the same target for the same source; use samples=1, or beams=1")
    for first in range(0, len(sources), options.batch):
        block = sources[first : first + options.batch]
        ids = [codec.encode_source(source) for source in block]
        shows = [on_text and bind_index(on_text, at) for at in range(first, first + len(block))]
        streams = [GrowingText(SentinelStream(codec.tokenizer), StopText(options.stop), show) for show in shows]
        rows = write_block(net, codec, ids, options, seeds[first : first + len(block)], streams)
        for source, seed, stream, (tokens, reason) in zip(block, seeds[first:], streams, rows, strict=False):
            stream.finish()
            text = cut_at_stop(codec.decode_target(tokens), options.stop)
            yield GeneratedText(str(source), text, tokens, seed, reason)
        if any(reason == "interrupted" for _, reason in rows):
            return


def write_block(
    net: EncoderDecoder,
    codec: SourceCodec,
    ids: Sequence[Sequence[int]],
    options: TargetOptions,
    seeds: Sequence[int],
    streams: Sequence[GrowingText] = (),
) -> list[tuple[list[int], str]]:
    """Tokens of the target of each source, given as ids with eos, and why it ends: eos, stop, length or interrupted."""
    write = search_block if options.beams > 1 else sample_block
    shown = streams or [GrowingText(SentinelStream(codec.tokenizer), StopText(options.stop)) for _ in ids]
    return write(net, codec, ids, options, seeds, shown)


def sample_block(
    net: EncoderDecoder,
    codec: SourceCodec,
    ids: Sequence[Sequence[int]],
    options: TargetOptions,
    seeds: Sequence[int],
    streams: Sequence[GrowingText],
) -> list[tuple[list[int], str]]:
    """Tokens of each target and why it ends, one token after the other by the rules."""
    from aptlab.sample.conditioned import ConditionedDecoder
    from aptlab.sample.loop import generate_rows

    tokenizer, mode = codec.tokenizer, net.training
    net.eval()
    try:
        reader: Any = ConditionedDecoder(net, ids)  # what `generate_rows` asks of a Decoder
        rows = generate_rows(
            reader,
            [[tokenizer.eos]] * len(ids),
            rules=options.rules,
            max_new_tokens=options.max_new_tokens,
            eos={*tokenizer.stops, *tokenizer.find_special_ids(options.stop)},
            seed=seeds,
            on_token=lambda row, token: streams[row].push(token),
            vocab=codec.vocab,
        )
    finally:
        net.train(mode)
    return [(row.tokens, row.reason or "length") for row in rows]


def search_block(
    net: EncoderDecoder,
    codec: SourceCodec,
    ids: Sequence[Sequence[int]],
    options: TargetOptions,
    seeds: Sequence[int],
    streams: Sequence[GrowingText],
) -> list[tuple[list[int], str]]:
    """The best hypothesis of each source."""
    from aptlab.sample.beam import BeamRule, search_beams

    del seeds
    tokenizer = codec.tokenizer
    found = search_beams(
        net,
        ids,
        rule=BeamRule(beams=options.beams, length_penalty=options.length_penalty),
        start=tokenizer.eos,
        max_new_tokens=options.max_new_tokens,
        eos={*tokenizer.stops, *tokenizer.find_special_ids(options.stop)},
        vocab=codec.vocab,
    )
    rows = []
    for stream, hypotheses in zip(streams, found, strict=True):
        best = hypotheses[0]
        for token in best.tokens:
            stream.push(token)
        rows.append((best.tokens, "stop" if stream.stop.stopped else "eos" if best.ended else "length"))
    return rows


def find_source_warning(codec: SourceCodec, sources: Sequence[Prompt], context: int) -> str | None:
    """One line where a source is longer than those that the network was trained with; else None."""
    longest = max((len(codec.encode_source(source)) for source in sources), default=0)
    if longest <= context:
        return None
    return f"a source of {longest} tokens is more than the trained context={context}; the target may be wrong beyond it"
