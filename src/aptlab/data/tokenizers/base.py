"""What every tokenizer can do: text to ids and back, one id at a time, and the state that makes an equal one.

A document never yields a special token: `<eos>` typed in it is five ordinary characters. A prompt may ask for them, as
chats are written with markers.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aptlab.data.tokenizers.token_bytes import count_decoded_bytes
from aptlab.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

Texts = Callable[[], Iterator[str]]
Messages = Sequence[Mapping[str, Any]]  # of a chat, each with `role` and `content`
BYTE_VALUES = 256
NEAR = 64  # tokens of a prompt that can matter to how the next ones read


class Tokenizer(ABC):
    """Ids are ints in [0, vocab_size); the tokens that begin and end texts come out of `encode` only when asked for."""

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """One more than the largest id."""

    @property
    @abstractmethod
    def eos(self) -> int:
        """The id that ends a document."""

    @property
    @abstractmethod
    def eos_name(self) -> str:
        """How the vocabulary writes `eos`."""

    @property
    def bos(self) -> int | None:
        """The id that begins a document, None where there is none."""
        return None

    @property
    def prefix(self) -> tuple[int, ...]:
        """Ids that stand in front of every text, as an imported tokenizer puts them: `<s>`, or nothing."""
        return ()

    @property
    def stops(self) -> tuple[int, ...]:
        """Every id at which a generated text ends, `eos` among them."""
        return (self.eos,)

    @property
    def opening(self) -> tuple[int, ...]:
        """What a text without words begins with: the prefix, else bos, else the end of the document before."""
        return self.prefix or (self.eos if self.bos is None else self.bos,)

    @property
    def reads_specials(self) -> bool:
        """Whether special tokens in a prompt are read as such, as an imported tokenizer does."""
        return False

    @property
    def chat_template(self) -> str | None:
        """The Jinja template that makes one text of messages, None where there is none."""
        return None

    @property
    def generation_defaults(self) -> Mapping[str, Any]:
        """How an imported model's generation_config.json has texts generated, {} where there is none."""
        return {}

    @abstractmethod
    def encode(self, text: str, *, specials: bool = False) -> list[int]:
        """Ids of `text` alone; `specials`: special tokens in it are read as such, else they are characters."""

    def encode_text(self, text: str) -> list[int]:
        """Ids of a whole text with the prefix in front, unless the text begins with it."""
        ids = self.encode(text, specials=self.reads_specials)
        return ids if tuple(ids[: len(self.prefix)]) == self.prefix else [*self.prefix, *ids]

    def encode_prompt(self, text: str) -> list[int]:
        """Ids of a text that is to be continued; an empty one begins a document."""
        return self.encode_text(text) or list(self.opening)

    def render_chat(self, messages: Messages, *, reply: bool = True) -> str:
        """Messages as one text, by the chat template.

        `reply`: up to where an answer begins; else up to the end of the last message, which is to be continued.
        Raises ConfigError where there is no template, DataError where it refuses the messages.
        """
        from aptlab.data.tokenizers.chat import render_chat

        if self.chat_template is None:
            raise ConfigError("this tokenizer has no chat template; give prompts as text, or import a chat model")
        return render_chat(self.chat_template, messages, names=self.special_names, reply=reply)

    @property
    def special_names(self) -> Mapping[str, str]:
        """Texts of special tokens as chat templates name them, such as bos_token."""
        return {}

    def encode_chat(self, messages: Messages) -> list[int]:
        """Ids of messages up to where an answer begins; the template writes the markers, bos among them, itself."""
        return self.encode(self.render_chat(messages), specials=True)

    @abstractmethod
    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Ids of each text as an integer array, without eos."""

    def encode_documents(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Ids of each document as training reads it: the prefix in front, eos left to the reader."""
        import numpy as np

        pieces = self.encode_batch(texts)
        if not self.prefix:
            return pieces
        return [np.concatenate((np.asarray(self.prefix, dtype=np.int64), piece)) for piece in pieces]

    def count_bytes(self) -> np.ndarray:
        """UTF-8 bytes of text that each id stands for, float64 [vocab_size]; 0 for eos and other special tokens.

        Those that an id adds to a decoded text, unless the tokenizer knows better.
        """
        import numpy as np

        counts = count_decoded_bytes(range(self.vocab_size), encode=self.encode, decode=self.decode)
        return np.array(counts, dtype=np.float64)

    @abstractmethod
    def decode(self, ids: Iterable[int], *, specials: bool = False) -> str:
        """Text of `ids`; special tokens vanish, or show by name; bytes that are no UTF-8 become U+FFFD."""

    def find_special_ids(self, texts: Iterable[str]) -> set[int]:
        """Ids of those texts that are the name of a special token."""
        found = [(self.encode(text, specials=True), self.encode(text)) for text in texts]
        return {marked[0] for marked, plain in found if len(marked) == 1 and marked != plain}

    def decode_after(self, before: Sequence[int], ids: Sequence[int]) -> str:
        """Text of `ids` behind the ids of a prompt: a decoder may drop a space at the front of a text, but not here."""
        near = list(before)[-NEAR:]
        start, whole = self.decode(near), self.decode([*near, *ids])
        return whole[len(start) :] if whole.startswith(start) else self.decode(ids)

    @abstractmethod
    def stream(self, after: Sequence[int] = (), *, specials: bool = False) -> TextStream:
        """A decoder for ids that come one at a time, behind those of `after`, which it does not show; see `decode`."""

    @abstractmethod
    def state(self) -> dict[str, str]:
        """Plain strings from which `restore_tokenizer` makes an equal tokenizer."""

    def key(self) -> str:
        """sha256 of the state: equal keys, equal ids."""
        return hashlib.sha256(json.dumps(self.state(), sort_keys=True).encode()).hexdigest()


class TextStream(ABC):
    """Ids in, whole characters out: a character shows once all of its bytes are there."""

    @abstractmethod
    def push(self, token: int) -> str:
        """The text that `token` completes, often empty in the middle of a character."""

    @abstractmethod
    def finish(self) -> str:
        """What is left at the end; an unfinished character comes out as U+FFFD."""


class TokenizerRule(ABC):
    """A tokenizer as a config names it."""

    @abstractmethod
    def prepare(self, texts: Texts, *, key: str, folder: Path) -> Tokenizer:
        """The tokenizer; one that has to be trained reads `texts()`, and is kept in `folder` under `key`."""

    def find_problems(self) -> Iterable[str]:
        """What a look at its files shows to be missing or wrong, before any text is read; no torch."""
        return ()

    def count_most_tokens(self, size: int, documents: int) -> int | None:
        """Tokens that so many bytes in so many documents become at most; None: only encoding tells."""
        del size, documents
        return None
