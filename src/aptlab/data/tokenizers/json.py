"""Tokenizers of the `tokenizers` library: a tokenizer.json on disk, or its text in a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aptlab.data.tokenizers.base import Texts, TextStream, Tokenizer, TokenizerRule
from aptlab.data.tokenizers.token_bytes import count_token_bytes
from aptlab.errors import AptlabError, ConfigError, DataError

if TYPE_CHECKING:
    import numpy as np

EOS_NAMES = ("<eos>", "</s>", "<|endoftext|>", "<|end_of_text|>", "<|eot_id|>", "<|im_end|>", "[SEP]")


@dataclass(frozen=True)
class TokenizerFile(TokenizerRule):
    """A tokenizer.json of the `tokenizers` library. `eos` names its end-of-document token, null looks for one."""

    path: str
    eos: str | None = None

    def prepare(self, texts: Texts, *, key: str, folder: Path) -> Tokenizer:
        del texts, key, folder
        try:
            text = Path(self.path).expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8"
            raise DataError(f"path={self.path} cannot be read: {reason}; give a tokenizer.json") from error
        return JsonTokenizer(text, f"path={self.path}", eos=self.eos)

    def find_problems(self) -> Iterator[str]:
        """A file that is not there, is no tokenizer, or has no token that ends a document."""
        try:
            self.prepare(lambda: iter(()), key="", folder=Path())
        except AptlabError as error:
            yield str(error)


class JsonTokenizer(Tokenizer):
    """A tokenizer of the `tokenizers` library, from the text of its tokenizer.json.

    `origin` is named in errors: DataError when the text is none, ConfigError when it has no eos token.
    """

    def __init__(self, text: str, origin: str, *, eos: str | None = None) -> None:
        from tokenizers import Tokenizer as Fast

        try:
            self._fast: Any = Fast.from_str(text)
        except Exception as error:
            raise DataError(f"{origin} is no tokenizer.json: {str(error)[:120]}") from error
        self._fast.no_truncation()
        self._fast.no_padding()
        self._fast.encode_special_tokens = True
        self._text = text
        vocab: Mapping[str, int] = self._fast.get_vocab(with_added_tokens=True)
        self._vocab_size = max(vocab.values(), default=-1) + 1
        name = eos or next((n for n in EOS_NAMES if n in vocab), None)
        if name is None or name not in vocab:
            raise ConfigError(
                f"{origin} has no token {eos or 'that ends a document'}; name one with eos=…, "
                f"such as one of {', '.join(sorted(vocab)[:5])}"
            )
        self._eos = vocab[name]
        self._eos_name = name

    @property
    def vocab_size(self) -> int:
        return self._vocab_size

    @property
    def eos(self) -> int:
        return self._eos

    def encode(self, text: str) -> list[int]:
        return self._fast.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        import numpy as np

        encoded = self._fast.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.asarray(item.ids, dtype=np.int64) for item in encoded]

    def decode(self, ids: Iterable[int]) -> str:
        return self._fast.decode([i for i in map(int, ids) if i != self._eos], skip_special_tokens=True)

    def count_bytes(self) -> np.ndarray:
        """Exact for a byte-level tokenizer; otherwise of the text that a token adds behind others, as it is decoded."""
        return count_token_bytes(self._text, self.vocab_size, encode=self.encode, decode=self.decode)

    def stream(self) -> TextStream:
        return JsonStream(self.decode)

    def state(self) -> dict[str, str]:
        return {"kind": "json", "json": self._text, "eos": self._eos_name}


class JsonStream(TextStream):
    """`TextStream` of any tokenizer that can decode a list.

    The text of the last tokens is decoded together, because some decoders add or drop a space at the front; it
    is held back while it ends in U+FFFD, at most four tokens long, since a character has at most four bytes.
    """

    def __init__(self, decode: Callable[[Iterable[int]], str]) -> None:
        self._decode = decode
        self._shown: list[int] = []
        self._pending: list[int] = []

    def push(self, token: int) -> str:
        self._pending.append(token)
        new = self._new()
        if new.endswith("\ufffd") and len(self._pending) < 4:
            return ""
        self._shown, self._pending = self._pending, []
        return new

    def finish(self) -> str:
        new = self._new()
        self._shown, self._pending = [], []
        return new

    def _new(self) -> str:
        before = self._decode(self._shown)
        return self._decode([*self._shown, *self._pending])[len(before) :]
