"""One token per byte of UTF-8."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from aptlab.data.tokenizers.base import BYTE_VALUES, Texts, TextStream, Tokenizer, TokenizerRule

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class ByteTokenizer(TokenizerRule, Tokenizer):
    """The 256 byte values and `<eos>` = 256. Needs no training, loses nothing, has 257 tokens."""

    @property
    def vocab_size(self) -> int:
        return BYTE_VALUES + 1

    @property
    def eos(self) -> int:
        return BYTE_VALUES

    def prepare(self, texts: Texts, *, key: str, folder: Path) -> Tokenizer:
        del texts, key, folder
        return self

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        import numpy as np

        return [np.frombuffer(text.encode(), dtype=np.uint8) for text in texts]

    def decode(self, ids: Iterable[int]) -> str:
        return bytes(i for i in map(int, ids) if i < BYTE_VALUES).decode("utf-8", errors="replace")

    def count_bytes(self) -> np.ndarray:
        import numpy as np

        return np.append(np.ones(BYTE_VALUES), 0.0)

    def stream(self) -> TextStream:
        return ByteStream()

    def state(self) -> dict[str, str]:
        return {"kind": "bytes"}


class ByteStream(TextStream):
    """`TextStream` of byte tokens."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token: int) -> str:
        return self._decoder.decode(bytes([token])) if token < BYTE_VALUES else ""

    def finish(self) -> str:
        return self._decoder.decode(b"", final=True)
