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

EOS = "<eos>"


@dataclass(frozen=True)
class ByteTokenizer(TokenizerRule, Tokenizer):
    """The 256 byte values and `<eos>` = 256. Needs no training, loses nothing, has 257 tokens."""

    @property
    def vocab_size(self) -> int:
        return BYTE_VALUES + 1

    @property
    def eos(self) -> int:
        return BYTE_VALUES

    @property
    def eos_name(self) -> str:
        return EOS

    def prepare(self, texts: Texts, *, key: str, folder: Path) -> Tokenizer:
        del texts, key, folder
        return self

    def count_most_tokens(self, size: int, documents: int) -> int | None:
        """One for each byte, and eos for each document."""
        return size + documents

    def encode(self, text: str, *, specials: bool = False) -> list[int]:
        first, *rest = text.split(EOS) if specials else [text]
        return list(first.encode()) + [byte for piece in rest for byte in (self.eos, *piece.encode())]

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        import numpy as np

        return [np.frombuffer(text.encode(), dtype=np.uint8) for text in texts]

    def decode(self, ids: Iterable[int], *, specials: bool = False) -> str:
        end = EOS.encode() if specials else b""
        return b"".join(bytes([i]) if i < BYTE_VALUES else end for i in map(int, ids)).decode("utf-8", errors="replace")

    def count_bytes(self) -> np.ndarray:
        import numpy as np

        return np.append(np.ones(BYTE_VALUES), 0.0)

    def stream(self, after: Sequence[int] = (), *, specials: bool = False) -> TextStream:
        del after  # bytes read the same wherever they stand
        return ByteStream(EOS if specials else "")

    def state(self) -> dict[str, str]:
        return {"kind": "bytes"}


class ByteStream(TextStream):
    """`TextStream` of byte tokens."""

    def __init__(self, end: str = "") -> None:
        self._end = end
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token: int) -> str:
        return self._decoder.decode(bytes([token]) if token < BYTE_VALUES else self._end.encode())

    def finish(self) -> str:
        return self._decoder.decode(b"", final=True)
