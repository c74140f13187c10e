"""Texts of a loaded network for a request: a decoder continues prompts, an encoder-decoder writes their targets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aptlab.errors import ConfigError
from aptlab.nn.width import Width
from aptlab.sample import GeneratedText, Prompt, SamplingRules, encode_prompt, generate_texts
from aptlab.sample.targets import SourceCodec, TargetOptions, find_source_warning, generate_targets

if TYPE_CHECKING:
    from aptlab.data.tokenizers import Tokenizer
    from aptlab.models import Decoder, EncoderDecoder
    from aptlab.sample.speculative import Draft
    from aptlab.sample.texts import OnText

Jobs = Sequence[tuple[Prompt, int]]  # prompts, each with its seed


@dataclass(frozen=True, kw_only=True)
class TextWishes:
    """What a caller asks for beside prompts and their seeds.

    rules, max_new_tokens, stop, batch   see `generate_texts`
    beams, length_penalty                see `TargetOptions`; of an encoder-decoder
    widths                               of a nested decoder: width, that of its drafter, tokens that it drafts
    """

    rules: SamplingRules
    max_new_tokens: int
    stop: Sequence[str]
    batch: int
    beams: int
    length_penalty: float
    widths: tuple[Width | None, Width | None, int]


@dataclass(frozen=True)
class WrittenTexts:
    """Texts as they are written, lines to show before the first one, and the smaller network that drafts them.

    continues  whether a text goes on with its prompt
    """

    texts: Iterator[GeneratedText]
    notes: tuple[str, ...] = ()
    draft: Draft | None = None
    continues: bool = True


def open_continuations(
    net: Decoder,
    tokenizer: Tokenizer,
    jobs: Jobs,
    wishes: TextWishes,
    *,
    context: int,
    on_text: OnText | None = None,
    draft: Draft | None = None,
) -> WrittenTexts:
    """Texts that go on with their prompts; `context` is the trained one, and `draft` drafts for the network."""
    from aptlab.sample.loop import check_prompts

    if wishes.beams > 1:
        raise ConfigError(
            f"beams={wishes.beams} searches the target of an encoder-decoder, and this model continues texts; use "
            "beams=1"
        )
    prompts = [prompt for prompt, _ in jobs]
    check_prompts([encode_prompt(tokenizer, text) for text in prompts], net, wishes.max_new_tokens)
    warning = find_length_warning(tokenizer, prompts, wishes.max_new_tokens, context)
    texts = generate_texts(
        net,
        tokenizer,
        prompts,
        rules=wishes.rules,
        max_new_tokens=wishes.max_new_tokens,
        seeds=[seed for _, seed in jobs],
        stop=wishes.stop,
        batch=wishes.batch,
        on_text=on_text,
        draft=draft,
    )
    return WrittenTexts(texts, (f"warning: {warning}",) if warning else (), draft)


def open_targets(
    net: EncoderDecoder,
    codec: SourceCodec,
    jobs: Jobs,
    wishes: TextWishes,
    *,
    context: int,
    on_text: OnText | None = None,
) -> WrittenTexts:
    """Targets for sources; `context` is the trained one."""
    if any(width is not None for width in wishes.widths[:2]):
        raise ConfigError("width and draft are of a nested decoder (ffn=matformer), and this model is no decoder")
    sources = [prompt for prompt, _ in jobs]
    warning = find_source_warning(codec, sources, context)
    notes = [f"warning: {warning}"] if warning else []
    if wishes.beams > 1:
        notes.append(f"{wishes.beams} beams, length_penalty {wishes.length_penalty:g}: nothing is sampled")
    options = TargetOptions(
        rules=wishes.rules,
        max_new_tokens=wishes.max_new_tokens,
        batch=wishes.batch,
        stop=wishes.stop,
        beams=wishes.beams,
        length_penalty=wishes.length_penalty,
    )
    seeds = [seed for _, seed in jobs]
    texts = generate_targets(net, codec, sources, options=options, seeds=seeds, on_text=on_text)
    return WrittenTexts(texts, tuple(notes), continues=False)


def find_length_warning(
    tokenizer: Tokenizer, prompts: Sequence[Prompt], max_new_tokens: int, context: int
) -> str | None:
    """One line where a text may become longer than the network was trained at, which is allowed; else None."""
    longest = max((len(encode_prompt(tokenizer, prompt)) for prompt in prompts), default=0)
    if longest + max_new_tokens <= context:
        return None
    return (
        f"{longest} prompt tokens + {max_new_tokens} new ones are more than the trained context={context}; "
        "the text may fall apart beyond it"
    )
