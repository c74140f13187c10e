"""Continue texts: prompts in, whole characters out, up to a stop string. torch is loaded by writing one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aptlab.data.tokenizers import TextStream, Tokenizer
from aptlab.errors import AptlabError
from aptlab.sample.rules import SamplingRules
from aptlab.sample.stop import StopText

if TYPE_CHECKING:
    from aptlab.models import Decoder

OnText = Callable[[int, str], None]


@dataclass(frozen=True)
class GeneratedText:
    """One finished text.

    prompt  what it continues
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
    pieces: list[str] = field(default_factory=list)

    def push(self, token: int) -> bool:
        """Take a token; true when a stop string is complete."""
        self._append(self.stop.push(self.stream.push(token)))
        return self.stop.stopped

    def finish(self) -> str:
        """The whole text, with what was held back until now."""
        self._append(self.stop.finish(self.stream.finish()))
        return "".join(self.pieces)

    def _append(self, piece: str) -> None:
        self.pieces.append(piece)
        if self.show is not None and piece:
            self.show(piece)


def generate_texts(
    net: Decoder,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    *,
    rules: SamplingRules,
    max_new_tokens: int,
    seeds: Sequence[int],
    stop: Sequence[str] = (),
    batch: int = 16,
    on_text: OnText | None = None,
) -> Iterator[GeneratedText]:
    """Texts in the order of their prompts, `batch` of them written at the same time; see `generate_rows`.

    seeds    one per prompt; equal prompts need different ones to differ
    stop     strings that end a text
    on_text  called with (index of the prompt, new characters) while a text is being written

    A keyboard interrupt ends the texts of the running batch where they are; the prompts after them give none.
    Raises AptlabError for prompts that cannot be continued and for logits that are not numbers.
    """
    from aptlab.sample.loop import generate_rows

    if len(seeds) != len(prompts):
        raise AptlabError(f"{len(seeds)} seeds for {len(prompts)} prompts; give one seed per prompt")
    for first in range(0, len(prompts), batch):
        block = prompts[first : first + batch]
        growing = [
            GrowingText(tokenizer.stream(), StopText(stop), on_text and bind_index(on_text, first + row))
            for row in range(len(block))
        ]
        rows = generate_rows(
            net,
            [encode_prompt(tokenizer, prompt) for prompt in block],
            rules=rules,
            max_new_tokens=max_new_tokens,
            eos=tokenizer.eos,
            seed=seeds[first : first + batch],
            on_token=lambda row, token, growing=growing: growing[row].push(token),
            vocab=tokenizer.vocab_size,
        )
        for prompt, seed, text, row in zip(block, seeds[first:], growing, rows, strict=False):
            yield GeneratedText(prompt, text.finish(), row.tokens, seed, row.reason or "length")
        if any(row.reason == "interrupted" for row in rows):
            return


def bind_index(on_text: OnText, index: int) -> Callable[[str], None]:
    """The callback of one text."""
    return lambda piece: on_text(index, piece)


def encode_prompt(tokenizer: Tokenizer, prompt: str) -> list[int]:
    """Tokens of a prompt; an empty one is the end of the document before."""
    return tokenizer.encode(prompt) or [tokenizer.eos]
