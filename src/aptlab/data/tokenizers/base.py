"""What every tokenizer can do: text to ids and back, one id at a time, and the state that makes an equal one.

A tokenizer never reads a special token out of text: `<eos>` typed in a document is five ordinary characters.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from aptlab.data.tokenizers.token_bytes import count_decoded_bytes

if TYPE_CHECKING:
    import numpy as np

Texts = Callable[[], Iterator[str]]
BYTE_VALUES = 256


class Tokenizer(ABC):
    """Ids are ints in [0, vocab_size); `eos` ends a document and never comes out of `encode`."""

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """One more than the largest id."""

    @property
    @abstractmethod
    def eos(self) -> int:
        """The id that ends a document."""

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Ids of `text`, without eos."""

    @abstractmethod
    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Ids of each text as an integer array, without eos."""

    @abstractmethod
    def decode(self, ids: Iterable[int]) -> str:
        """Text of `ids`; special tokens vanish, bytes that are no UTF-8 become U+FFFD."""

    def count_bytes(self) -> np.ndarray:
        """UTF-8 bytes of text that each id stands for, float64 [vocab_size]; 0 for eos and other special tokens.

        Those that an id adds to a decoded text, unless the tokenizer knows better.
        """
        import numpy as np

        counts = count_decoded_bytes(range(self.vocab_size), encode=self.encode, decode=self.decode)
        return np.array(counts, dtype=np.float64)

    @abstractmethod
    def stream(self) -> TextStream:
        """A decoder for ids that come one at a time."""

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
