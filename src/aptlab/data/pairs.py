"""The Lightning data module of pairs: sources and targets, encoded once and kept in memory."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from lightning.pytorch import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn

from aptlab.data.loader import RowLoader, ValLoader
from aptlab.data.ranks import count_read_batches, find_rank_share
from aptlab.data.rows.base import BatchPlan
from aptlab.data.rows.epochs import EpochRows, ValidationRows
from aptlab.data.rows.pair_table import FlatRows, PairTable
from aptlab.data.sources import Pair, PairSource
from aptlab.data.store.cache import find_cache_root
from aptlab.data.store.split import Split, check_sides
from aptlab.data.tokenizers import Tokenizer, TokenizerRule
from aptlab.data.validate import validate_rows, validate_source
from aptlab.errors import CheckpointError, ConfigError, DataError
from aptlab.limits import PositiveInt
from aptlab.shown import count_nouns

log = logging.getLogger("aptlab")
AHEAD = 2
CHUNK = 4096  # pairs that are encoded together


@dataclass(frozen=True)
class PairSide:
    """One side of the split: pairs as text and as tokens, and how many were left out for their length."""

    pairs: list[Pair]
    table: PairTable
    left_out: int


class PairData(LightningDataModule):
    """Pairs of a source and a target as padded rows: an endless training loader and a finite validation loader.

    A row has `context` tokens of the source and `target_context` of the target (null: as many), eos counted; pairs that
    are longer are left out and counted in the log. A pair is on the side of the split that its source is on, so that no
    source is on both. The other parameters are those of `TextData`. Raises ConfigError and DataError.
    """

    def __init__(
        self,
        source: PairSource,
        tokenizer: TokenizerRule | Tokenizer,
        *,
        context: PositiveInt,
        batch: PositiveInt,
        target_context: PositiveInt | None = None,
        seed: int = 0,
        val_batches: PositiveInt | None = 32,
        split: Split | None = None,
        cache: str | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("context", context), ("batch", batch), ("target_context", target_context or 1)):
            if value < 1:
                raise ConfigError(f"{name}={value} must be 1 or more; try {name}=16")
        self.source, self.context, self.batch, self.seed = source, context, batch, seed
        self.target_context, self.val_batches = target_context or context, val_batches
        self.split, self.cache = split or Split(), cache
        self._rule = tokenizer
        self._start = self._counted = 0

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer; one that is trained reads sources and targets of the training side."""
        if isinstance(self._rule, Tokenizer):
            return self._rule
        key = f"{self._source_key}:{self.split.key()}:pairs"
        return self._rule.prepare(self._train_texts, key=key, folder=find_cache_root(self.cache) / "tokenizers")

    @property
    def vocab_size(self) -> int:
        """Tokens that the model needs."""
        return self.tokenizer.vocab_size

    @cached_property
    def fingerprint(self) -> str:
        """64 hex digits: pairs, tokenizer, split and lengths; the same on every machine that has the same pairs."""
        lengths = [self.context, self.target_context]
        facts = json.dumps(["pairs", self._source_key, self.tokenizer.key(), self.split.key(), lengths])
        return hashlib.sha256(facts.encode()).hexdigest()

    @cached_property
    def sides(self) -> dict[str, PairSide]:
        """The sides "train" and "val", read and encoded when first asked for. DataError where one has no pair."""
        validate_source(self.source, fingerprint=self._source_key)
        found: dict[str, list[Pair]] = {"train": [], "val": []}
        for pair in self.source.pairs(lambda line: log.info("%s", line)):
            found["val" if self.split.is_val(pair.source) else "train"].append(pair)
        check_sides({side: len(pairs) for side, pairs in found.items()}, self.split)
        return {name: self._encode_side(name, pairs) for name, pairs in found.items()}

    def _encode_side(self, name: str, pairs: list[Pair]) -> PairSide:
        encoded = [part for part in self._encode(pairs) if self._fits(*part[1:])]
        gone = len(pairs) - len(encoded)
        limits = f"context={self.context} or target_context={self.target_context} tokens"
        if not encoded:
            raise DataError(
                f"all {count_nouns(gone, 'pair')} of the {name} side are longer than {limits}, eos counted; use larger "
                "ones, or shorter pairs"
            )
        if gone:
            log.warning("left out %s of %s of the %s side, longer than %s", f"{gone:,}", len(pairs), name, limits)
        sources, targets = (FlatRows.join(part[1] for part in encoded), FlatRows.join(part[2] for part in encoded))
        table = PairTable(
            sources, targets, eos=self.tokenizer.eos, context=self.context, target_context=self.target_context
        )
        return PairSide([part[0] for part in encoded], table, gone)

    def _encode(self, pairs: list[Pair]) -> Iterator[tuple[Pair, np.ndarray, np.ndarray]]:
        for first in range(0, len(pairs), CHUNK):
            part = pairs[first : first + CHUNK]
            sources = self.tokenizer.encode_batch([pair.source for pair in part])
            targets = self.tokenizer.encode_batch([pair.target for pair in part])
            yield from zip(part, sources, targets, strict=True)

    def _fits(self, source: np.ndarray, target: np.ndarray) -> bool:
        return len(source) < self.context and len(target) < self.target_context

    def summary(self) -> dict[str, Any]:
        """What a result should say about its data."""
        counts = {f"{name}_pairs": len(side.pairs) for name, side in self.sides.items()}
        counts |= {f"{name}_left_out": side.left_out for name, side in self.sides.items()}
        facts = {"name": self.source.name, "fingerprint": self.fingerprint, "vocab": self.vocab_size}
        return {**facts, "split": self.split.key(), "val_text": self.val_text, **counts}

    @cached_property
    def val_text(self) -> str:
        """64 hex digits that name the validation pairs, whatever their tokens are."""
        total = hashlib.sha256()
        for pair in self.sides["val"].pairs:
            total.update(json.dumps([pair.source, pair.target]).encode())
        return total.hexdigest()

    def prepare_data(self) -> None:
        """Read, encode and check; Lightning calls it on one rank of each host."""
        validate_rows(self._training_rows(self._plan()), context=self.context)

    def setup(self, stage: str = "fit") -> None:
        """Read the pairs on every rank."""
        del stage
        _ = self.sides

    def train_dataloader(self) -> RowLoader:
        """The endless loader of this rank, from the first micro-batch that was not trained on."""
        on_cuda = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        self._counted = count_read_batches(self.trainer)
        rows = self._training_rows(self._plan())
        return RowLoader(rows, start=self._start, prefetch=AHEAD if on_cuda else 0, pin=on_cuda)

    def val_dataloader(self) -> ValLoader:
        """The validation rows of this rank."""
        limit = None if self.val_batches is None else self.val_batches * self.batch
        return ValLoader(ValidationRows(self.sides["val"].table, self._plan(), limit=limit))

    def epoch_of(self, micro_batches: int) -> float:
        """Passes over the training rows after that many micro-batches on each device."""
        return micro_batches / self._training_rows(self._plan()).batches_per_epoch

    def batches_per_epoch(self, world: int) -> int:
        """Micro-batches of each of `world` devices in one pass. Raises ConfigError when not one fits."""
        return self._training_rows(BatchPlan(batch=self.batch, seed=self.seed, world=world)).batches_per_epoch

    def state_dict(self) -> dict[str, Any]:
        """Micro-batches trained on, and what makes their number meaningful. Plain values."""
        rows = self._training_rows(self._plan()).state()
        given = self._start + count_read_batches(self.trainer) - self._counted
        return {"micro_batches": given, "fingerprint": self.fingerprint, **rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken. CheckpointError where the pairs differ."""
        if self.trainer is not None and self.trainer.state.fn not in (None, TrainerFn.FITTING):
            return
        self.check_state(state_dict)
        if state_dict.get("seed", self.seed) != self.seed:
            log.warning("resuming with seed=%s in place of %s: rows may repeat", self.seed, state_dict["seed"])
        rows, before = self._training_rows(self._plan()), state_dict.get("global_batch")
        self._start = state_dict["micro_batches"]
        if before not in (None, rows.plan.global_batch):
            self._start = rows.convert_number(self._start, global_batch=before)
            log.warning("resuming with %d rows per global batch in place of %d", rows.plan.global_batch, before)

    def check_state(self, state_dict: dict[str, Any]) -> None:
        """CheckpointError when `state_dict` was taken from other pairs."""
        if state_dict.get("fingerprint", self.fingerprint) != self.fingerprint:
            raise CheckpointError(
                "the checkpoint was trained on other pairs; resume with the source, tokenizer, split and lengths it "
                "had, or start a new run from its weights with load=weights"
            )

    def _training_rows(self, plan: BatchPlan) -> EpochRows:
        return EpochRows(self.sides["train"].table, plan)

    def _plan(self) -> BatchPlan:
        rank, world = find_rank_share(self.trainer)
        return BatchPlan(batch=self.batch, seed=self.seed, rank=rank, world=world)

    @cached_property
    def _source_key(self) -> str:
        return self.source.fingerprint()

    def _train_texts(self) -> Iterator[str]:
        for pair in self.source.pairs():
            if not self.split.is_val(pair.source):
                yield from (pair.source, pair.target)
