"""Byte-level byte-pair encoding, trained on the training documents and kept in the cache."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from aptlab.data.tokenizers.base import BYTE_VALUES, Texts, Tokenizer, TokenizerRule
from aptlab.data.tokenizers.json import JsonTokenizer
from aptlab.errors import ConfigError
from aptlab.limits import PositiveInt, validate_limits

LONGEST = 1024  # bytes of a word that is trained on whole; a time, and no result of ordinary text
RUN = re.compile(rf"\S{{{LONGEST // 4},}}|\s{{{LONGEST // 4},}}")  # a longer word has at least so many characters
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
        if path.is_file():
            return JsonTokenizer(path.read_text(encoding="utf-8"), str(path))
        state = self.train(texts())
        folder.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(state, encoding="utf-8")
        temporary.replace(path)
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
