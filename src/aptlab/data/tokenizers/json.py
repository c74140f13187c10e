"""Tokenizers of the `tokenizers` library: a tokenizer.json on disk, or its text in a checkpoint."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aptlab.bounded import TABLE, read_bounded_text
from aptlab.data.tokenizers.base import NEAR, Texts, TextStream, Tokenizer, TokenizerRule
from aptlab.data.tokenizers.hf_files import read_folder_files, read_special_words
from aptlab.data.tokenizers.ordinary import can_be_typed, hide_tokens
from aptlab.data.tokenizers.token_bytes import count_token_bytes
from aptlab.errors import AptlabError, ConfigError, DataError
from aptlab.shown import show_line

if TYPE_CHECKING:
    import numpy as np

BROKEN = "\ufffd"  # what bytes that are no character read as
WINDOW = 64  # tokens that are decoded together while no character is whole
EOS_NAMES = ("<eos>", "</s>", "<|endoftext|>", "<|end_of_text|>", "<|eot_id|>", "<|im_end|>", "[SEP]")


@dataclass(frozen=True)
class TokenizerFile(TokenizerRule):
    """A tokenizer.json of the `tokenizers` library, with the files of its folder that say which tokens are special.

    `eos` names its end-of-document token; null takes the one that the files name, else looks for the usual names.
    """

    path: str
    eos: str | None = None

    def prepare(self, texts: Texts, *, key: str, folder: Path) -> Tokenizer:
        del texts, key, folder
        path = Path(self.path).expanduser()
        try:
            text = read_bounded_text(path, TABLE)
        except (OSError, ValueError) as error:
            said = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else error
            reason = getattr(error, "strerror", None) or said
            raise DataError(f"path={self.path} cannot be read: {reason}; give a tokenizer.json") from error
        return JsonTokenizer(text, f"path={self.path}", eos=self.eos, files=read_folder_files(path))

    def find_problems(self) -> Iterator[str]:
        """A file that is not there, is no tokenizer, or has no token that ends a document."""
        try:
            self.prepare(lambda: iter(()), key="", folder=Path())
        except AptlabError as error:
            yield str(error)


class JsonTokenizer(Tokenizer):
    """A tokenizer of the `tokenizers` library, from the text of its tokenizer.json.

    files  texts of the files beside it by name; None: the text alone, as our own BPE and older checkpoints have it,
           and then nothing is put in front of a text

    `origin` is named in errors: DataError when the text is none, ConfigError when it has no eos token.
    """

    def __init__(
        self, text: str, origin: str, *, eos: str | None = None, files: Mapping[str, str] | None = None
    ) -> None:
        self._text, self._files, self._origin = text, files, origin
        self._words = read_special_words(files)
        self._fast = self._load(specials=False)
        with name_library_error(f"{origin} cannot be read"):
            self._prefix, self._suffix = find_affixes(self._fast) if files is not None else ((), ())
        vocab: Mapping[str, int] = self._fast.get_vocab(with_added_tokens=True)
        self._vocab_size = max(vocab.values(), default=-1) + 1
        ends = [self._fast.id_to_token(number) for number in self._words.ends]
        names = [eos] if eos else [self._words.names.get("eos_token"), *ends, *EOS_NAMES]
        name = next((n for n in names if n in vocab), None)
        if name is None:
            raise ConfigError(
                f"{origin} has no token {eos or 'that ends a document'}; name one with eos=…, "
                f"such as one of {', '.join(sorted(vocab)[:5])}"
            )
        self._eos, self._eos_name = vocab[name], name
        self._bos = vocab.get(self._words.names.get("bos_token", ""))

    @property
    def vocab_size(self) -> int:
        return self._vocab_size

    @property
    def eos(self) -> int:
        return self._eos

    @property
    def eos_name(self) -> str:
        return self._eos_name

    @property
    def bos(self) -> int | None:
        return self._bos

    @property
    def prefix(self) -> tuple[int, ...]:
        return self._prefix

    @property
    def stops(self) -> tuple[int, ...]:
        known = [number for number in self._words.ends if number < self._vocab_size]
        return tuple(dict.fromkeys([*known, self._eos]))

    @property
    def reads_specials(self) -> bool:
        return not self._words.split

    @property
    def chat_template(self) -> str | None:
        return self._words.template

    @property
    def special_names(self) -> Mapping[str, str]:
        return self._words.names

    @property
    def generation_defaults(self) -> Mapping[str, Any]:
        return self._words.defaults

    def name_tokens(self, ids: Iterable[int]) -> str:
        """The names of `ids`, for people."""
        return " ".join(self._fast.id_to_token(number) or f"token {number}" for number in ids)

    @property
    def notes(self) -> list[str]:
        """Lines on what is not done as the files say."""
        lines = []
        if self._suffix:
            lines.append(
                f"the tokenizer puts {self.name_tokens(self._suffix)} behind every text; aptlab does not, so that a "
                "prompt can be continued"
            )
        asked = self._words.asks_bos
        if asked is not None and asked != bool(self._prefix):
            lines.append(
                f"add_bos_token={str(asked).lower()} in tokenizer_config.json is not what tokenizer.json does; as in "
                f"transformers 5 the latter holds: {'one' if self._prefix else 'none'} stands in front of a text"
            )
        return lines

    @cached_property
    def _hidden(self) -> frozenset[int]:
        """Ids that no decoded text shows."""
        return frozenset({*self.stops, *self._prefix, *([] if self._bos is None else [self._bos])})

    @cached_property
    def _plain(self) -> Any:
        """The library's tokenizer that finds no special token in a text."""
        added = self._fast.get_added_tokens_decoder()
        numbers = {number for number, token in added.items() if token.special} | self._hidden
        numbers -= {find_unknown(self._fast)}  # what a vocabulary has not may well be in a text
        words = {number: self._fast.id_to_token(number) for number in sorted(numbers)}
        protected = {number: word for number, word in words.items() if word is not None}
        return self._load(protected) if can_be_typed(self._fast, protected) else self._fast

    @cached_property
    def _marked(self) -> Any:
        """The library's tokenizer that reads special tokens in a text."""
        return self._load(specials=True)

    def _load(self, protected: Mapping[int, str] | None = None, *, specials: bool = False) -> Any:
        with name_library_error(f"{self._origin} is no tokenizer.json"):
            text = hide_tokens(self._text, protected) if protected else self._text
        fast = load_fast(text, self._origin)
        mark_special_tokens(fast, [*self._words.names.values()], self._words.added)
        fast.encode_special_tokens = not specials
        return fast

    def encode(self, text: str, *, specials: bool = False) -> list[int]:
        fast = self._marked if specials else self._plain
        with name_library_error(f"{self._origin} cannot encode a text"):
            return fast.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        import numpy as np

        fast = self._plain
        with name_library_error(f"{self._origin} cannot encode a text"):
            encoded = fast.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.asarray(item.ids, dtype=np.int64) for item in encoded]

    def decode(self, ids: Iterable[int], *, specials: bool = False) -> str:
        numbers = [i for i in map(int, ids) if specials or i not in self._hidden]
        with name_library_error(f"{self._origin} cannot decode its tokens"):
            return self._fast.decode(numbers, skip_special_tokens=not specials)

    def count_bytes(self) -> np.ndarray:
        """Exact for a byte-level tokenizer; otherwise of the text that a token adds behind others, as it is decoded."""
        with name_library_error(f"{self._origin} is no tokenizer.json"):
            sizes = count_token_bytes(self._text, self.vocab_size, encode=self.encode, decode=self.decode)
        sizes[list(self._hidden)] = 0  # which a file may not mark as special
        return sizes

    def stream(self, after: Sequence[int] = (), *, specials: bool = False) -> TextStream:
        return JsonStream(partial(self.decode, specials=specials), after)

    def state(self) -> dict[str, str]:
        state = {"kind": "json", "json": self._text, "eos": self._eos_name}
        if self._files is not None:
            state["files"] = json.dumps(dict(self._files), sort_keys=True)
        if self._bos is not None:
            state["bos"] = self._fast.id_to_token(self._bos)
        return state


def load_fast(text: str, origin: str) -> Any:
    """The library's tokenizer of a tokenizer.json, without truncation and padding. DataError when it is none."""
    from tokenizers import Tokenizer as Fast

    with name_library_error(f"{origin} is no tokenizer.json"):
        fast = Fast.from_str(text)
        fast.no_truncation()
        fast.no_padding()
    return fast


@contextlib.contextmanager
def name_library_error(what: str) -> Iterator[None]:
    """What the library `tokenizers`, or our own reading of its file, raises inside: a DataError that opens with `what`.

    The library is written in Rust, where a pattern that fails while it is compiled or matched ends in a panic. That
    arrives as a `PanicException`, which is no Exception in Python and passes every other handler.
    """
    try:
        yield
    except AptlabError:
        raise
    except Exception as error:
        raise DataError(f"{what}: {show_line(error)[:120]}") from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        reason = f"the library tokenizers gave up on it ({show_line(error)[:120]})"
        raise DataError(f"{what}: {reason}; take another version of the file") from None


def mark_special_tokens(fast: Any, names: Sequence[str], added: Mapping[int, Mapping[str, Any]]) -> None:
    """Change added tokens as the files beside say, and mark the named ones as special; none gets a new id."""
    from tokenizers import AddedToken

    for number, entry in added.items():
        if fast.token_to_id(entry.get("content", "")) == number:
            fast.add_tokens([AddedToken(**entry)])
    marked = {token.content for token in fast.get_added_tokens_decoder().values() if token.special}
    for name in dict.fromkeys(names):
        if name not in marked and fast.token_to_id(name) is not None:
            fast.add_special_tokens([AddedToken(name, special=True, normalized=False)])


def find_affixes(fast: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Ids that the post-processor puts in front of every text, and behind it."""
    found = fast.encode("a", add_special_tokens=True)
    words = [place for place, special in enumerate(found.special_tokens_mask) if not special]
    return (tuple(found.ids[: words[0]]), tuple(found.ids[words[-1] + 1 :])) if words else ((), ())


def find_unknown(fast: Any) -> int | None:
    """The id for what the vocabulary has not, None where there is none."""
    name = getattr(fast.model, "unk_token", None)  # Unigram has a number instead
    return fast.token_to_id(name) if name is not None else getattr(fast.model, "unk_id", None)


class JsonStream(TextStream):
    """`TextStream` of any tokenizer that can decode a list.

    The text of the last tokens is decoded together, because some decoders add or drop a space at the front. Up to three
    U+FFFD at its end are held back: a character has at most four bytes, and each that is there may show as one.
    """

    def __init__(self, decode: Callable[[Iterable[int]], str], after: Sequence[int] = ()) -> None:
        self._decode = decode
        self._shown: list[int] = list(after[-NEAR:])
        self._pending: list[int] = []
        self._given = 0  # characters of the pending tokens that are shown already

    def push(self, token: int) -> str:
        self._pending.append(token)
        new = self._new()
        if (new and not new.endswith(BROKEN)) or new == "" or len(self._pending) == WINDOW:
            return self.finish()
        broken = len(new) - len(new.rstrip(BROKEN)) if new else 0
        return self._give(new[: len(new) - min(broken, 3)]) if new else ""

    def finish(self) -> str:
        new = self._new()
        text = self._give(self._decode(self._pending) if new is None else new)
        # Tokens without a text, such as a lone space that is dropped at the front, still say what comes next.
        self._shown = [*self._shown, *self._pending][-NEAR:] if new == "" else self._pending
        self._pending, self._given = [], 0
        return text

    def _give(self, text: str) -> str:
        """What of `text` is not shown yet."""
        new, self._given = text[self._given :], max(self._given, len(text))
        return new

    def _new(self) -> str | None:
        """Text of the pending tokens; None while they change the text before them, as the bytes of a character do."""
        before, whole = self._decode(self._shown), self._decode([*self._shown, *self._pending])
        return whole[len(before) :] if whole.startswith(before) else None
