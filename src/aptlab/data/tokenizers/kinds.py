"""Text to token ids and back: bytes, a byte-level BPE trained on the training documents, a tokenizer.json.

`Bytes`, `BPE` and `File` are what a config names; `prepare` turns any of them into a `Tokenizer`. A tokenizer
never reads a special token out of text: `<eos>` typed in a document is five ordinary characters.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aptlab.errors import CheckpointError, ConfigError, DataError
from aptlab.limits import PositiveInt, validate_limits

if TYPE_CHECKING:
    import numpy as np

Texts = Callable[[], Iterator[str]]
EOS_NAMES = ("<eos>", "</s>", "<|endoftext|>", "<|end_of_text|>", "<|eot_id|>", "<|im_end|>", "[SEP]")
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

    @abstractmethod
    def stream(self) -> TextStream:
        """A decoder for ids that come one at a time."""

    @abstractmethod
    def state(self) -> dict[str, str]:
        """Plain strings from which `from_state` makes an equal tokenizer."""

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

    def stream(self) -> TextStream:
        return ByteStream()

    def state(self) -> dict[str, str]:
        return {"kind": "bytes"}


@dataclass(frozen=True)
class BPE(TokenizerRule):
    """Byte-level byte-pair encoding (Sennrich et al. 2016, arXiv:1508.07909) with `vocab` tokens.

    Trained on the training documents only, so no validation text shapes the vocabulary. The 256 bytes and
    `<eos>` are always in it, so every text round-trips. A corpus too small for `vocab` gives fewer tokens.
    """

    vocab: PositiveInt = 4096
    min_frequency: PositiveInt = 2

    def __post_init__(self) -> None:
        validate_limits(self)
        if self.vocab < BYTE_VALUES + 1:
            raise ConfigError(
                f"vocab={self.vocab} cannot hold the 256 bytes and <eos>; smallest: 257 (tokenizer=bytes)"
            )

    def prepare(self, texts: Texts, *, key: str, folder: Path) -> Tokenizer:
        digest = hashlib.sha256(f"{key}:{self.vocab}:{self.min_frequency}:1".encode()).hexdigest()
        path = folder / f"{digest[:32]}.json"
        if path.is_file():
            return JsonTokenizer(path.read_text(encoding="utf-8"), str(path))
        state = self.train(texts())
        folder.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(state, encoding="utf-8")
        temporary.replace(path)
        return JsonTokenizer(state, str(path))

    def train(self, texts: Iterator[str]) -> str:
        """The trained tokenizer as the text of a tokenizer.json."""
        from tokenizers import Tokenizer as Fast
        from tokenizers import decoders, models, pre_tokenizers, trainers

        fast = Fast(models.BPE())
        fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore
        fast.decoder = decoders.ByteLevel()  # pyright: ignore
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocab,  # pyright: ignore
            min_frequency=self.min_frequency,  # pyright: ignore
            special_tokens=["<eos>"],  # pyright: ignore
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),  # pyright: ignore
            show_progress=False,  # pyright: ignore
        )
        fast.train_from_iterator(texts, trainer=trainer)
        return fast.to_str()


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

    def stream(self) -> TextStream:
        return JsonStream(self.decode)

    def state(self) -> dict[str, str]:
        return {"kind": "json", "json": self._text, "eos": self._eos_name}


class ByteStream(TextStream):
    """`TextStream` of byte tokens."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token: int) -> str:
        return self._decoder.decode(bytes([token])) if token < BYTE_VALUES else ""

    def finish(self) -> str:
        return self._decoder.decode(b"", final=True)


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


def restore_tokenizer(state: Mapping[str, str]) -> Tokenizer:
    """The tokenizer that wrote `state`, as found in a checkpoint. Raises CheckpointError for an unknown kind."""
    if state.get("kind") == "bytes":
        return ByteTokenizer()
    if state.get("kind") == "json" and isinstance(state.get("json"), str):
        return JsonTokenizer(state["json"], "the tokenizer in the checkpoint", eos=state.get("eos"))
    raise CheckpointError(
        f"the checkpoint holds a tokenizer of kind {state.get('kind')!r}; this aptlab knows bytes and json"
    )
