"""The Lightning data module: source, tokenizer, cache and loaders behind one object."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, cast

from lightning.pytorch import LightningDataModule
from lightning.pytorch.strategies import ParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn

from aptlab.data.loader import TokenLoader, ValLoader
from aptlab.data.rows.packed import Packed
from aptlab.data.rows.windows import Windows
from aptlab.data.sources import Source
from aptlab.data.store.cache import Progress, TokenStore, compute_cache_key, find_cache_root, open_or_build_store
from aptlab.data.store.split import Split
from aptlab.data.tokenizers import Tokenizer, TokenizerRule
from aptlab.errors import CheckpointError, ConfigError
from aptlab.limits import PositiveInt, find_limit

log = logging.getLogger("aptlab")
AHEAD = 2


class TextData(LightningDataModule):
    """Packed text: an endless training loader and a finite validation loader.

    `batch` rows of `context` tokens make a micro-batch on each device; `seed` decides their order. Validation takes
    `val_batches * batch` rows in all, whatever the number of devices; null takes every row. `cache` is the folder
    for token files. `tokenizer` may be a rule (Bytes, BPE, File) or a finished Tokenizer, say of a checkpoint.
    Set `progress` to a callable (unit, amount) to watch a cache being built.
    Raises ConfigError and DataError, when built or at the first use of the text.
    """

    def __init__(
        self,
        source: Source,
        *,
        tokenizer: TokenizerRule | Tokenizer,
        context: PositiveInt,
        batch: PositiveInt,
        seed: int = 0,
        document_mask: bool = False,
        val_batches: PositiveInt | None = 32,
        split: Split | None = None,
        cache: str | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("context", context), ("batch", batch), ("val_batches", val_batches)):
            _check_positive(name, value)
        self.source, self.context, self.batch, self.seed = source, context, batch, seed
        self.document_mask, self.val_batches = document_mask, val_batches
        self.split, self.cache = split or Split(), cache
        self.progress: Progress | None = None
        self._rule = tokenizer
        self._tokenizer = tokenizer if isinstance(tokenizer, Tokenizer) else None
        self._key: str | None = None
        self._store: TokenStore | None = None
        self._start = self._counted = 0

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer; trains or reads it when first asked."""
        if self._tokenizer is None:
            assert isinstance(self._rule, TokenizerRule)
            key = f"{self._source_key}:{self.split.key()}"
            folder = find_cache_root(self.cache) / "tokenizers"
            self._tokenizer = self._rule.prepare(self._train_texts, key=key, folder=folder)
        return self._tokenizer

    @property
    def vocab_size(self) -> int:
        """Tokens that the model needs."""
        return self.tokenizer.vocab_size

    @property
    def fingerprint(self) -> str:
        """64 hex digits: documents, tokenizer and split; the same on every machine that has the same text."""
        if self._key is None:
            self._key = compute_cache_key(self._source_key, self.tokenizer, self.split)
        return self._key

    @property
    def store(self) -> TokenStore:
        """The tokens; built when first asked, mapped afterwards."""
        if self._store is None:
            self._store = open_or_build_store(
                self.source,
                self.tokenizer,
                self.split,
                root=find_cache_root(self.cache),
                key=self.fingerprint,
                progress=self.progress,
            )
        return self._store

    @property
    def bytes_per_token(self) -> float:
        """UTF-8 bytes per token of the validation text; bits per byte = nats / ln 2 / this."""
        return self.store.val.bytes_per_token

    def summary(self) -> dict[str, Any]:
        """What a result should say about its data."""
        sides = self.store.meta["sides"]
        counts = {f"{side}_{what}": sides[side][what] for side in sides for what in ("tokens", "documents", "bytes")}
        return {"name": self.source.name, "fingerprint": self.fingerprint, "vocab": self.vocab_size, **counts}

    def prepare_data(self) -> None:
        """Build the cache; Lightning calls it on one rank of each host."""
        _ = self.store

    def setup(self, stage: str = "fit") -> None:
        """Map the cache on every rank."""
        del stage
        _ = self.store

    def train_dataloader(self) -> TokenLoader:
        """The endless loader of this rank, from the first micro-batch that was not trained on."""
        rank, world = self._share()
        on_cuda = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        self._counted = self._processed()
        return TokenLoader(
            self._rows("train"),
            batch=self.batch,
            seed=self.seed,
            start=self._start,
            rank=rank,
            world=world,
            prefetch=AHEAD if on_cuda else 0,
            pin=on_cuda,
        )

    def val_dataloader(self) -> ValLoader:
        """The validation rows of this rank."""
        rank, world = self._share()
        limit = None if self.val_batches is None else self.val_batches * self.batch
        return ValLoader(self._rows("val"), batch=self.batch, limit=limit, rank=rank, world=world)

    def windows(
        self, context: int | None = None, *, multiples: Sequence[int] = (1, 2, 4, 8), tokens: int = 65_536
    ) -> Windows:
        """Validation segments for the table of losses at several lengths; see `Windows`."""
        return Windows(self.store.val, context=context or self.context, multiples=multiples, tokens=tokens)

    def epoch_of(self, micro_batches: int) -> float:
        """Passes over the training rows after that many micro-batches on each device."""
        return micro_batches / self._batches_per_epoch(self.batch * self._share()[1])

    def batches_per_epoch(self, world: int) -> int:
        """Micro-batches of each of `world` devices in one pass. Raises ConfigError when not one fits."""
        return TokenLoader(self._rows("train"), batch=self.batch, seed=self.seed, world=world).batches_per_epoch

    def state_dict(self) -> dict[str, Any]:
        """Micro-batches trained on, and what makes their number meaningful. Plain ints and strings."""
        return {
            "micro_batches": self._start + self._processed() - self._counted,
            "global_batch": self.batch * self._share()[1],
            "context": self.context,
            "seed": self.seed,
            "fingerprint": self.fingerprint,
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
        self._start = self._converted(state_dict["micro_batches"], state_dict.get("global_batch"))

    def check_state(self, state_dict: dict[str, Any]) -> None:
        """CheckpointError when `state_dict` was taken from another text or other rows."""
        for name, now in (("fingerprint", self.fingerprint), ("context", self.context)):
            before = state_dict.get(name, now)
            if before != now:
                raise CheckpointError(
                    f"the checkpoint was trained on other data: {name} {_short(before)}, now {_short(now)}; resume "
                    "with the data, tokenizer, split and context it had, or start a new run from its weights "
                    "with load=weights"
                )

    def _converted(self, number: int, before: int | None) -> int:
        """Micro-batch `number` of global batches of `before` rows, in global batches of today."""
        now = self.batch * self._share()[1]
        if before is None or before == now:
            return number
        epoch, i = divmod(number, self._batches_per_epoch(before))
        start = epoch * self._batches_per_epoch(now) + i * before // now
        log.warning("resuming with %d rows per global batch in place of %d: at micro-batch %d", now, before, start)
        return start

    def _batches_per_epoch(self, global_batch: int) -> int:
        return max(1, len(self._rows("train")) // global_batch)

    def _processed(self) -> int:
        """Micro-batches that Lightning has counted, over all resumes."""
        if self.trainer is None:
            return 0
        return cast(Any, self.trainer.fit_loop.epoch_loop.batch_progress.total).processed

    def _share(self) -> tuple[int, int]:
        """Rank and number of ranks that get different rows (tensor-parallel ranks share theirs)."""
        if self.trainer is None or not isinstance(self.trainer.strategy, ParallelStrategy):
            return 0, 1
        share = self.trainer.strategy.distributed_sampler_kwargs
        return share["rank"], share["num_replicas"]

    def _rows(self, side: str) -> Packed:
        tokens = self.store.train if side == "train" else self.store.val
        return Packed(tokens.tokens, tokens.offsets, self.context, self.document_mask, side)

    @cached_property
    def _source_key(self) -> str:
        return self.source.fingerprint()

    def _train_texts(self) -> Iterator[str]:
        return (text for _, text in self.source.documents() if not self.split.is_val(text))


def _check_positive(name: str, value: int | None) -> None:
    limit = find_limit(PositiveInt)
    if limit and value is not None and limit.problem(value):
        raise ConfigError(f"{name}={value} must be {limit}; try {name}=16")


def _short(value: Any) -> str:
    return str(value)[:12]
