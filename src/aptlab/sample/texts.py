"""Continue texts: prompts in, whole characters out, up to a stop string. torch is loaded by writing one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aptlab.data.tokenizers import TextStream, Tokenizer
from aptlab.errors import AptlabError, ConfigError
from aptlab.sample.rules import SamplingRules
from aptlab.sample.stop import StopText, cut_at_stop

if TYPE_CHECKING:
    from torch import Tensor

    from aptlab.models import Decoder
    from aptlab.sample.speculative import Draft

OnText = Callable[[int, str], None]


@dataclass(frozen=True)
class ChatPrompt:
    """Messages, each a dict of `role` and `content`; the tokenizer's chat template makes the text that is continued."""

    messages: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, eq=False)
class SoftPrompt:
    """A prompt behind soft tokens: vectors in place of rows of the embedding (Lester et al. 2021, arXiv:2104.08691).

    text    as it is shown
    tokens  ids that are read behind the soft tokens: those of the text, or of its last window
    prefix  [P, C], P may be 0
    """

    text: str
    tokens: Sequence[int]
    prefix: Tensor


Prompt = str | ChatPrompt | SoftPrompt


@dataclass(frozen=True)
class GeneratedText:
    """One finished text.

    prompt  what it continues; of messages, the text that the chat template makes
    text    what was written, without the prompt and without the stop string
    tokens  ids of what was written, those of the stop string among them
    seed    of its random numbers: the same prompt, rules and seed give the same text, in any batch
    reason  why it ends: "eos", "stop", "length" or "interrupted"
    """

    prompt: str
    text: str
    tokens: list[int]
    seed: int
    reason: str

    def __str__(self) -> str:
        return self.prompt + self.text


@dataclass
class GrowingText:
    """A text that is being written: characters show once they are whole and can no longer begin a stop string."""

    stream: TextStream
    stop: StopText
    show: Callable[[str], None] | None = None

    def push(self, token: int) -> bool:
        """Take a token; true when a stop string is complete."""
        self._show(self.stop.push(self.stream.push(token)))
        return self.stop.stopped

    def finish(self) -> None:
        """Show what was held back until now."""
        self._show(self.stop.finish(self.stream.finish()))

    def _show(self, piece: str) -> None:
        if self.show is not None and piece:
            self.show(piece)


def generate_texts(
    net: Decoder,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    *,
    rules: SamplingRules,
    max_new_tokens: int,
    seeds: Sequence[int],
    stop: Sequence[str] = (),
    batch: int = 16,
    on_text: OnText | None = None,
    draft: Draft | None = None,
) -> Iterator[GeneratedText]:
    """Texts in the order of their prompts, `batch` of them written at the same time; see `generate_rows`.

    seeds    one per prompt; equal prompts need different ones to differ
    stop     strings that end a text; names of special tokens are these tokens
    on_text  called with (index of the prompt, new characters) while a text is being written
    draft    a smaller network that drafts tokens, see `generate_rows`

    A keyboard interrupt ends the texts of the running batch where they are; the prompts after them give none.
    Raises AptlabError for prompts that cannot be continued and for logits that are not numbers.
    """
    from aptlab.sample.loop import generate_rows

    if len(seeds) != len(prompts):
        raise AptlabError(f"{len(seeds)} seeds for {len(prompts)} prompts; give one seed per prompt")
    ends = {*tokenizer.stops, *tokenizer.find_special_ids(stop)}
    for first in range(0, len(prompts), batch):
        block = [encode_prompt(tokenizer, prompt) for prompt in prompts[first : first + batch]]
        growing = [
            GrowingText(tokenizer.stream(ids), StopText(stop), on_text and bind_index(on_text, first + row))
            for row, ids in enumerate(block)
        ]
        rows = generate_rows(
            net,
            block,
            rules=rules,
            max_new_tokens=max_new_tokens,
            eos=ends,
            seed=seeds[first : first + batch],
            on_token=lambda row, token, growing=growing: growing[row].push(token),
            vocab=tokenizer.vocab_size,
            draft=draft,
            prefixes=[find_prefix(prompt) for prompt in prompts[first : first + batch]],
        )
        for prompt, ids, seed, text, row in zip(prompts[first:], block, seeds[first:], growing, rows, strict=False):
            text.finish()
            whole = cut_at_stop(tokenizer.decode_after(ids, row.tokens), stop)
            yield GeneratedText(render_prompt(tokenizer, prompt), whole, row.tokens, seed, row.reason or "length")
        if any(row.reason == "interrupted" for row in rows):
            return


def bind_index(on_text: OnText, index: int) -> Callable[[str], None]:
    """The callback of one text."""
    return lambda piece: on_text(index, piece)


def render_prompt(tokenizer: Tokenizer, prompt: Prompt) -> str:
    """The text of a prompt, markers among them."""
    if isinstance(prompt, SoftPrompt):
        return prompt.text
    return tokenizer.render_chat(prompt.messages) if isinstance(prompt, ChatPrompt) else prompt


def encode_prompt(tokenizer: Tokenizer, prompt: Prompt) -> list[int]:
    """Tokens of a prompt; an empty one begins a document. See `Tokenizer.encode_prompt` and `Tokenizer.encode_chat`."""
    if isinstance(prompt, SoftPrompt):
        return list(prompt.tokens)
    if isinstance(prompt, ChatPrompt):
        return tokenizer.encode_chat(prompt.messages)
    return tokenizer.encode_prompt(prompt)


def find_prefix(prompt: Prompt) -> Tensor | None:
    """The soft tokens in front of a prompt, [P, C]; None where there are none."""
    return prompt.prefix if isinstance(prompt, SoftPrompt) and len(prompt.prefix) else None


def make_prompts(
    prompts: str | Sequence[str | SoftPrompt | Sequence[Mapping[str, Any]]], *, chat: bool = False
) -> list[Prompt]:
    """Prompts as they are given: a text, or a list of texts, of lists of messages and of prompts behind soft tokens.

    `chat`: a text is what a user says, and the model answers. ConfigError for what is none of these.
    """
    given = [prompts] if isinstance(prompts, str) else list(prompts) if isinstance(prompts, Iterable) else None
    if given is None or not all(isinstance(one, str | SoftPrompt | Sequence) for one in given):
        raise ConfigError(f"prompts={prompts!r}: give a text, or a list of texts")
    asked = [[{"role": "user", "content": one}] if chat and isinstance(one, str) else one for one in given]
    return [one if isinstance(one, str | SoftPrompt) else ChatPrompt(one) for one in asked]
