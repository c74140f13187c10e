"""The Lightning data module: source, tokenizer, cache and loaders behind one object."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn

from aptlab.data.loader import RowLoader, ValLoader
from aptlab.data.ranks import count_read_batches, find_rank_share
from aptlab.data.rows import BatchPlan, Packed, RowKind, Rows, SegmentPlan
from aptlab.data.rows.epochs import ValidationRows
from aptlab.data.rows.numbered import NumberedRows
from aptlab.data.rows.order import RowOrder
from aptlab.data.rows.ordered import OrderedRows
from aptlab.data.rows.text_rows import TextRows, name_document
from aptlab.data.rows.windows import Windows
from aptlab.data.sources import Source
from aptlab.data.store.cache import (
    Progress,
    TokenStore,
    check_way,
    compute_cache_key,
    find_cache_root,
    has_store,
    open_or_build_store,
)
from aptlab.data.store.plan import SplitPlan, open_or_make_plan
from aptlab.data.store.split import Split
from aptlab.data.store.text_digest import open_or_make_text_digest
from aptlab.data.tokenizers import Tokenizer, TokenizerRule
from aptlab.data.validate import validate_rows, validate_source
from aptlab.errors import CheckpointError, ConfigError
from aptlab.limits import PositiveInt, find_limit

log = logging.getLogger("aptlab")
AHEAD = 2
SHUFFLED = "none"  # the order of rows where no curriculum gives one


class TextData(LightningDataModule):
    """Text as rows of tokens: an endless training loader and a finite validation loader.

    `source` gives the documents and `rows` says how rows are made of them (null: `Packed`). `batch` rows of `context`
    tokens make a micro-batch on each device; `seed` decides their order. Validation takes `val_batches * batch` rows
    in all, whatever the number of devices; null takes every row. `cache` is the folder for token files, and `verify`
    how they are verified: auto, full or size, see `aptlab.data.store.cache`. `tokenizer` may be a rule (ByteTokenizer,
    BPE, TokenizerFile) or a finished Tokenizer, say of a checkpoint.
    Set `progress` to a callable (unit, amount) to watch a cache being built.
    Raises ConfigError and DataError, when built, in `prepare_data`, or at the first use of the text.
    """

    def __init__(
        self,
        source: Source,
        tokenizer: TokenizerRule | Tokenizer,
        *,
        context: PositiveInt,
        batch: PositiveInt,
        rows: RowKind | None = None,
        seed: int = 0,
        val_batches: PositiveInt | None = 32,
        split: Split | None = None,
        cache: str | None = None,
        verify: str = "auto",
    ) -> None:
        super().__init__()
        check_way(verify)
        for name, value in (("context", context), ("batch", batch), ("val_batches", val_batches)):
            _check_positive(name, value)
        self.source, self.context, self.batch, self.seed = source, context, batch, seed
        self.rows, self.val_batches = rows or Packed(), val_batches
        self.split, self.cache, self.verify = split or Split(), cache, verify
        self.progress: Progress | None = None
        self._rule = tokenizer
        self._tokenizer = tokenizer if isinstance(tokenizer, Tokenizer) else None
        self._key: str | None = None
        self._store: TokenStore | None = None
        self._made: dict[BatchPlan, Rows] = {}
        self._order: RowOrder | None = None
        self._late: RowLoader | None = None  # makes the batches of an order that changes with training
        self._start = self._counted = 0

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer; trains or reads it when first asked."""
        if self._tokenizer is None:
            assert isinstance(self._rule, TokenizerRule)
            key = f"{self._source_key}:{self.split_plan.key()}"
            folder = self._cache_root / "tokenizers"
            self._tokenizer = self._rule.prepare(self._train_texts, key=key, folder=folder)
        return self._tokenizer

    @cached_property
    def split_plan(self) -> SplitPlan:
        """How this text is split; reads every document when it is asked for the first time on a machine."""
        texts = self._read_validated()
        plan = open_or_make_plan(self.split, texts, folder=self._cache_root / "splits", key=self._source_key)
        for line in plan.list_notes():
            log.info("%s", line)
        return plan

    @property
    def vocab_size(self) -> int:
        """Tokens that the model needs."""
        return self.tokenizer.vocab_size + self.rows.extra_tokens

    @property
    def target_context(self) -> int:
        """Tokens of the target of each row, 0 where rows are no pairs."""
        return self.rows.count_target_tokens(self.context)

    @cached_property
    def _kind(self) -> RowKind:
        """The rows, of this tokenizer."""
        return self.rows.for_tokenizer(self.tokenizer)

    @property
    def fingerprint(self) -> str:
        """64 hex digits: documents, tokenizer and split; the same on every machine that has the same text."""
        if self._key is None:
            self._key = compute_cache_key(self._source_key, self.tokenizer, self.split_plan)
        return self._key

    @property
    def store(self) -> TokenStore:
        """The tokens; built when first asked, mapped afterwards."""
        if self._store is None:
            self._store = open_or_build_store(
                self.source,
                self.tokenizer,
                self.split_plan,
                root=self._cache_root,
                key=self.fingerprint,
                verify=self.verify,
                progress=self.progress,
            )
        return self._store

    @property
    def row_tokens(self) -> int:
        """Tokens of a training row: the context, or several windows of it."""
        return self.rows.count_row_tokens(self.context)

    @property
    def segment_plan(self) -> SegmentPlan | None:
        """How rows are read that are parts of longer texts; None: each is one pass, and stands alone."""
        return self.rows.plan_segments(self.context)

    @property
    def bytes_per_token(self) -> float:
        """UTF-8 bytes per token of the whole validation text."""
        return self.store.val.bytes_per_token

    @cached_property
    def token_bytes(self) -> np.ndarray:
        """UTF-8 bytes that each token stands for, float64 [vocab]: bits per byte = nats / ln 2 / sum over the targets.

        Those of the tokenizer, exact for bytes and byte-level BPE. A tokenizer that changes the text (unknown words,
        normalization) has tokens that do not add up to its size: then all are scaled so that the validation text does.
        """
        sizes, side = np.append(self.tokenizer.count_bytes(), np.zeros(self.rows.extra_tokens)), self.store.val
        found = np.bincount(side.tokens, minlength=len(sizes)) @ sizes
        return sizes * (side.sizes.sum() / found) if found else np.full(len(sizes), side.bytes_per_token)

    @cached_property
    def val_text(self) -> str:
        """64 hex digits that name the text of the validation side, whatever its tokens are.

        Token files of an earlier version do not say it: then the documents are read once more.
        """
        if found := self.store.meta["sides"]["val"].get("text"):
            return found
        parts = (self.split_plan.divide(text)[1] for _, text in self.source.documents())
        return open_or_make_text_digest(
            (text for text in parts if text),
            folder=self._cache_root / "splits",
            key=f"{self._source_key}:{self.split_plan.key()}",
        )

    def summary(self) -> dict[str, Any]:
        """What a result should say about its data."""
        sides = self.store.meta["sides"]
        counts = {f"{side}_{what}": sides[side][what] for side in sides for what in ("tokens", "documents", "bytes")}
        facts = {"name": self.source.name, "fingerprint": self.fingerprint, "vocab": self.vocab_size}
        facts |= {"split": self.split_plan.name, "val_text": self.val_text}
        return {**facts, **counts, **self.rows.settings()}

    def prepare_data(self) -> None:
        """Build the cache and check the parts; Lightning calls it on one rank of each host.

        Raises DataError where the source or the rows break what `aptlab.testing` says of them.
        """
        if self._store is None and not has_store(self._cache_root, self.fingerprint):
            validate_source(self.source, fingerprint=self._source_key)
        if self._order is None:  # another order is not asked before its time
            validate_rows(self._training_rows(self._plan()), context=self.row_tokens)

    def setup(self, stage: str = "fit") -> None:
        """Map the cache on every rank."""
        del stage
        _ = self.store

    def train_dataloader(self) -> RowLoader:
        """The endless loader of this rank, from the first micro-batch that was not trained on."""
        on_cuda = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        self._counted = count_read_batches(self.trainer)
        rows = self._training_rows(self._plan())
        late = self._order is not None
        ahead = AHEAD if on_cuda and not late else 0
        loader = RowLoader(rows, start=self._start, prefetch=ahead, pin=on_cuda, late=late)
        self._late = loader if late else None
        return loader

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """The batch; made only now where its loader gave its number."""
        del dataloader_idx
        return self._late.batch_at(batch) if self._late is not None and isinstance(batch, int) else batch

    def val_dataloader(self) -> ValLoader:
        """The validation rows of this rank."""
        limit = None if self.val_batches is None else self.val_batches * self.batch
        table = self._kind.make_validation_table(self.store.val, context=self.context)
        return ValLoader(ValidationRows(table, self._plan(), limit=limit))

    def windows(
        self, context: int | None = None, *, multiples: Sequence[int] = (1, 2, 4, 8), tokens: int = 65_536
    ) -> Windows:
        """Validation segments for the table of losses at several lengths; see `Windows`."""
        return Windows(
            self.store.val,
            context=context or self.context,
            multiples=multiples,
            tokens=tokens,
            token_bytes=self.token_bytes,
        )

    # Rows by number, and their order: see `aptlab.data.rows.numbered.OrderedData`

    def number_rows(self, side: str) -> NumberedRows:
        """The rows of "train" or "val" by number. Raises ConfigError where rows have no numbers."""
        make = self._kind.make_training_table if side == "train" else self._kind.make_validation_table
        part = self.store.train if side == "train" else self.store.val
        return TextRows(
            make(part, context=self.context),
            part,
            name=side,
            tokenizer=self.tokenizer,
            facts={"store": self.fingerprint, **self.rows.settings()},
            name_document=lambda number: name_document(self.source, self.split_plan, side, number),
        )

    def set_order(self, order: RowOrder | None) -> None:
        """Train in this order from the next loader on; None for shuffled epochs."""
        self._order = order
        self._made.clear()

    def count_given_rows(self) -> int:
        """Rows that all ranks together have trained on, in global batches of today."""
        return (self._start + count_read_batches(self.trainer) - self._counted) * self.count_global_batch()

    def count_global_batch(self) -> int:
        """Rows of one micro-batch of all ranks together."""
        return self._plan().global_batch

    @property
    def store_folder(self) -> Path:
        """The folder of all caches."""
        return self._cache_root

    def epoch_of(self, micro_batches: int) -> float:
        """Passes over the training rows after that many micro-batches on each device."""
        return micro_batches / self._training_rows(self._plan()).batches_per_epoch

    def batches_per_epoch(self, world: int) -> int:
        """Micro-batches of each of `world` devices in one pass. Raises ConfigError when not one fits."""
        plan = BatchPlan(batch=self.batch, seed=self.seed, world=world)
        return self._training_rows(plan).batches_per_epoch

    def state_dict(self) -> dict[str, Any]:
        """Micro-batches trained on, and what makes their number meaningful. Plain values."""
        return {
            "micro_batches": self._start + count_read_batches(self.trainer) - self._counted,
            "fingerprint": self.fingerprint,
            **self._training_rows(self._plan()).state(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken. Raises CheckpointError when the text or the rows differ.

        Another number of devices or another batch continues at the same row, rounded down to a global batch.
        Validating or testing with a checkpoint takes nothing from it, so that may be done on any text.
        """
        if self.trainer is not None and self.trainer.state.fn not in (None, TrainerFn.FITTING):
            return
        self.check_state(state_dict)
        if state_dict.get("seed", self.seed) != self.seed:
            log.warning("resuming with seed=%s in place of %s: rows may repeat", self.seed, state_dict["seed"])
        before, now = state_dict.get("order", SHUFFLED), self._order.name if self._order else SHUFFLED
        if before != now:
            log.warning("resuming with rows in the order %s in place of %s: rows may repeat", now, before)
        self._start = self._convert_number(state_dict["micro_batches"], state_dict.get("global_batch"))

    def check_state(self, state_dict: dict[str, Any]) -> None:
        """CheckpointError when `state_dict` was taken from another text or other rows."""
        for name, now in (("fingerprint", self.fingerprint), ("context", self.context)):
            before = state_dict.get(name, now)
            if before != now:
                if name == "fingerprint" and before == self._whole_fingerprint():
                    raise CheckpointError(
                        "the checkpoint was trained on a split by whole documents, and these are split inside; resume "
                        "with data.split.inside=false and load=resume"
                    )
                raise CheckpointError(
                    f"the checkpoint was trained on other data: {name} {str(before)[:12]}, now {str(now)[:12]}; resume "
                    "with the data, tokenizer, split and context it had, or start a new run from its weights "
                    "with load=weights"
                )
        for name, now in self.rows.settings().items():
            before = state_dict.get(name, now)
            if before != now:
                raise CheckpointError(
                    f"the checkpoint was trained with other rows: {name} {before}, now {now}; resume with what it had, "
                    "or start a new run from its weights with load=weights"
                )

    def _whole_fingerprint(self) -> str:
        """What `fingerprint` would be with `split.inside` false."""
        return compute_cache_key(self._source_key, self.tokenizer, dataclasses.replace(self.split_plan, tails=None))

    def _convert_number(self, number: int, before: int | None) -> int:
        """Micro-batch `number` of global batches of `before` rows, in global batches of today."""
        rows = self._training_rows(self._plan())
        now = rows.plan.global_batch
        if before is None or before == now:
            return number
        start = rows.convert_number(number, global_batch=before)
        log.warning("resuming with %d rows per global batch in place of %d: at micro-batch %d", now, before, start)
        return start

    def _plan(self) -> BatchPlan:
        rank, world = find_rank_share(self.trainer)
        return BatchPlan(batch=self.batch, seed=self.seed, rank=rank, world=world)

    def _training_rows(self, plan: BatchPlan) -> Rows:
        if plan not in self._made:
            self._made[plan] = self._make_rows(plan)
        return self._made[plan]

    def _make_rows(self, plan: BatchPlan) -> Rows:
        if self._order is None:
            return self._kind.make_rows(self.store.train, context=self.context, plan=plan)
        table = self._kind.make_training_table(self.store.train, context=self.context)
        return OrderedRows(table, plan, self._order, settings=self.rows.settings())

    @cached_property
    def _source_key(self) -> str:
        return self.source.fingerprint()

    @cached_property
    def _cache_root(self) -> Path:
        return find_cache_root(self.cache)

    def _read_validated(self) -> Iterator[str]:
        """Every text, after a look at whether the source keeps its promises."""
        validate_source(self.source, fingerprint=self._source_key)
        yield from (text for _, text in self.source.documents())

    def _train_texts(self) -> Iterator[str]:
        parts = (self.split_plan.divide(text)[0] for _, text in self.source.documents())
        return (text for text in parts if text)


def _check_positive(name: str, value: int | None) -> None:
    limit = find_limit(PositiveInt)
    if limit and value is not None and limit.problem(value):
        raise ConfigError(f"{name}={value} must be {limit}; try {name}=16")
