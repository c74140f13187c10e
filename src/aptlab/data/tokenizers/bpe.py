"""Byte-level byte-pair encoding, trained on the training documents and kept in the cache."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from aptlab.data.tokenizers.base import BYTE_VALUES, Texts, Tokenizer, TokenizerRule
from aptlab.data.tokenizers.json import JsonTokenizer
from aptlab.errors import ConfigError
from aptlab.limits import PositiveInt, validate_limits


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
