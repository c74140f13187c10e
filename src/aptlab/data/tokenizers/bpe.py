"""Byte-level byte-pair encoding, trained on the training documents and kept in the cache."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from aptlab.data.tokenizers.base import BYTE_VALUES, Texts, Tokenizer, TokenizerRule
from aptlab.data.tokenizers.json import JsonTokenizer
from aptlab.errors import AptlabError, ConfigError
from aptlab.limits import PositiveInt, validate_limits

LONGEST = 1024  # bytes of a word that is trained on whole; a time, and no result of ordinary text
RUN = re.compile(rf"\S{{{LONGEST // 4},}}|\s{{{LONGEST // 4},}}")  # a longer word has at least so many characters
ROOM = "free some space, or name another folder with data.cache=…"
log = logging.getLogger("aptlab")


@dataclass(frozen=True)
class BPE(TokenizerRule):
    """Byte-level byte-pair encoding (Sennrich et al. 2016, arXiv:1508.07909) with `vocab` tokens.

    Trained on the training documents only, so no validation text shapes the vocabulary. The 256 bytes and
    `<eos>` are always in it, so every text round-trips. A corpus too small for `vocab` gives fewer tokens.
    Words of more than LONGEST bytes are trained on in pieces: the time is quadratic in the longest word.
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
        known, _ = read_kept_tokenizer(path)
        if known is not None:
            return known
        from aptlab.runs.lock import wait_for_lock  # a check needs none of it

        folder.mkdir(parents=True, exist_ok=True)
        with wait_for_lock(path.with_name(f".{path.name}.lock")):
            known, damage = read_kept_tokenizer(path)  # another process may have trained it meanwhile
            if known is not None:
                return known
            if damage is not None:
                log.warning("the tokenizer %s is damaged (%s); training it again", path, damage)
            state = self.train(texts())
            keep_tokenizer(path, state)
        return JsonTokenizer(state, str(path))

    def count_most_tokens(self, size: int, documents: int) -> int | None:
        """None has less than a byte, and eos follows each document."""
        return size + documents

    def train(self, texts: Iterator[str]) -> str:
        """The trained tokenizer as the text of a tokenizer.json."""
        from tokenizers import Regex, decoders, models, pre_tokenizers, trainers
        from tokenizers import Tokenizer as Fast

        fast = Fast(models.BPE())
        words = pre_tokenizers.ByteLevel(add_prefix_space=False)
        pieces = pre_tokenizers.Split(Regex(f".{{1,{LONGEST}}}"), behavior="isolated")
        fast.pre_tokenizer = pre_tokenizers.Sequence([words, pieces])  # pyright: ignore
        fast.decoder = decoders.ByteLevel()  # pyright: ignore
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocab,  # pyright: ignore
            min_frequency=self.min_frequency,  # pyright: ignore
            special_tokens=["<eos>"],  # pyright: ignore
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),  # pyright: ignore
            show_progress=False,  # pyright: ignore
        )
        fast.train_from_iterator(tell_long_word(texts, words.pre_tokenize_str), trainer=trainer)
        fast.pre_tokenizer = words  # pyright: ignore
        return fast.to_str()


def keep_tokenizer(path: Path, text: str) -> None:
    """Write a tokenizer.json and, before it, its sha256 beside it; both are whole or not there."""
    from aptlab.runs.atomic import write_text  # a check needs none of it

    digest = hashlib.sha256(text.encode()).hexdigest()
    write_text(make_sum_path(path), f"{digest}  {path.name}\n", way_out=ROOM)
    write_text(path, text, way_out=ROOM)


def read_kept_tokenizer(path: Path) -> tuple[JsonTokenizer | None, str | None]:
    """The tokenizer in a file of the cache, or None and what is damaged; twice None where there is no file.

    One of an earlier version has no sha256 beside it: it is taken as it is, if it can be read, and given one.
    """
    expected = None
    try:
        text = path.read_text(encoding="utf-8")
        sums = make_sum_path(path)
        if sums.exists():
            expected = sums.read_text(encoding="utf-8").partition(" ")[0]
        if expected not in (None, hashlib.sha256(text.encode()).hexdigest()):
            return None, "it does not have its sha256"
        found = JsonTokenizer(text, str(path))
    except FileNotFoundError:
        return None, None
    except (OSError, UnicodeDecodeError) as error:
        return None, getattr(error, "strerror", None) or "it is not UTF-8"
    except AptlabError as error:
        return None, str(error)
    if expected is None:
        log.info("the tokenizer %s is of an earlier version, without a checksum; taken as it is, and given one", path)
        with contextlib.suppress(AptlabError):  # a full disk is no reason to stop here
            keep_tokenizer(path, text)
    return found, None


def make_sum_path(path: Path) -> Path:
    """Where the sha256 of a kept tokenizer is, in the words of `sha256sum --check`."""
    return path.with_name(f"{path.name}.sha256")


def tell_long_word(texts: Iterator[str], split: Callable[[str], list[tuple[str, tuple[int, int]]]]) -> Iterator[str]:
    """The texts as they are, with one line in the log for the first word of more than LONGEST bytes."""
    for text in texts:
        for run in RUN.finditer(text):
            longest = max(split(run[0]), key=lambda word: len(word[0]))[0]
            if len(longest) > LONGEST:
                log.info(
                    "the text has words of more than %s bytes, one of %s; the tokenizer is trained on pieces of them",
                    f"{LONGEST:,}",
                    f"{len(longest):,}",
                )
                yield text
                yield from texts
                return
        yield text
