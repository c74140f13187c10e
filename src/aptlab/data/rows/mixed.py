"""Rows of a long context, of which a share are short documents: training for two windows at once.

Legend: B rows per micro-batch, T tokens per row (the long context), L the trained length, W ranks.

LongRoPE2 (arXiv:2502.20082, section 3.3) trains on short documents with the original rotation and on long text with
the rescaled one, so that short texts stay as good as they were. Three kinds of rows:

short   packed documents, each cut into pieces of at most L tokens; a piece sees itself alone
packed  whole documents behind each other; each sees itself alone, so those up to L count as short ones
long    one segment of T tokens, inside one document where there are such documents

Positions restart with every piece or document, so a rule that chooses by length (rope=longrope, longrope2) takes its
short factors for pieces up to L and its long ones for the rest; the model needs no word about it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from aptlab.data.loader import Batch, ValLoader, prefetch_batches, to_tensors
from aptlab.data.module import AHEAD, TextData
from aptlab.data.rows.order import permute_indices
from aptlab.data.rows.packed import Arrays, Packed, gather_rows, locate_documents, shift_targets
from aptlab.data.rows.windows import Windows
from aptlab.data.sources import Source
from aptlab.data.store.split import Split
from aptlab.data.tokenizers import Tokenizer, TokenizerRule
from aptlab.errors import CheckpointError, ConfigError
from aptlab.limits import Fraction, PositiveInt, validate_limits

KINDS = ("short", "packed", "long")
CYCLE = 100  # rows in which the shares are exact, in whole percent


@dataclass(frozen=True, kw_only=True)
class Mix:
    """Parts of the rows; the rest is long. The paper's tokens: 3 of 10 up to L, 3 to 100k, 4 to 200k (section 4.1).

    original_len  L in tokens; None cannot be trained on
    """

    original_len: PositiveInt | None = None
    short: Fraction = 0.3
    packed: Fraction = 0.3

    def __post_init__(self) -> None:
        validate_limits(self)
        if self.short + self.packed > 1:
            raise ConfigError(
                f"short={self.short} and packed={self.packed} are more than all rows; their sum is at most 1"
            )

    def counts(self) -> tuple[int, int, int]:
        """Rows of each kind in CYCLE rows."""
        short, both = round(self.short * CYCLE), round((self.short + self.packed) * CYCLE)
        return short, both - short, CYCLE - both


@dataclass(frozen=True)
class MixedRows:
    """Rows of three kinds over the stream `tokens` [N] with document starts `offsets` [D + 1]."""

    tokens: np.ndarray
    offsets: np.ndarray
    context: int
    original_len: int
    pieces: np.ndarray = field(init=False)
    starts: dict[str, np.ndarray] = field(init=False)

    def __post_init__(self) -> None:
        stream = Packed(self.tokens, self.offsets, self.context)
        everywhere = np.arange(len(stream), dtype=np.int64) * self.context
        inside = find_inner_segments(self.offsets, self.context)
        object.__setattr__(self, "pieces", cut_documents(self.offsets, self.original_len))
        starts = {"short": everywhere, "packed": everywhere, "long": inside if len(inside) else everywhere}
        object.__setattr__(self, "starts", starts)

    def rows(self, kinds: np.ndarray, numbers: np.ndarray) -> Arrays:
        """Rows `numbers` [B] of `kinds` [B]: tokens, targets, positions and segments [B, T], kinds and ids [B]."""
        starts = np.array([self.starts[KINDS[k]][n] for k, n in zip(kinds, numbers, strict=True)], dtype=np.int64)
        batch = shift_targets(gather_rows(self.tokens, starts, self.context + 1))
        positions = np.tile(np.arange(self.context, dtype=np.int64), (len(starts), 1))
        segments = np.ones_like(positions)
        for kind, offsets in ((0, self.pieces), (1, self.offsets)):
            mine = np.flatnonzero(kinds == kind)
            if len(mine):
                positions[mine], segments[mine] = locate_documents(offsets, starts[mine], self.context)
        return {**batch, "positions": positions, "segments": segments, "kinds": kinds.astype(np.int64), "ids": starts}


def cut_documents(offsets: np.ndarray, longest: int) -> np.ndarray:
    """Document starts with more of them, so that no piece is longer than `longest`."""
    sizes = np.diff(offsets)
    counts = -(-sizes // longest)
    first = np.repeat(np.cumsum(counts) - counts, counts)
    within = (np.arange(counts.sum()) - first) * longest
    return np.append(np.repeat(offsets[:-1], counts) + within, offsets[-1])


def find_inner_segments(offsets: np.ndarray, length: int) -> np.ndarray:
    """Starts of segments of length + 1 tokens that lie in one document, as many as fit."""
    counts = np.maximum(np.diff(offsets) - 1, 0) // length
    document = np.repeat(np.arange(len(counts)), counts)
    number = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.asarray(offsets)[document] + number * length


class MixedLoader:
    """Micro-batches without end, each a function of its number, with exact shares in every CYCLE rows.

    Row n of all ranks together is row n mod CYCLE of cycle n // CYCLE, shuffled within the cycle; the k-th row of a
    kind is the k-th of that kind's own shuffled epochs. So resuming is starting at a number.
    """

    def __init__(
        self,
        rows: MixedRows,
        *,
        mix: Mix,
        batch: int,
        seed: int,
        start: int = 0,
        share: tuple[int, int] = (0, 1),
        prefetch: int = 0,
        pin: bool = False,
    ) -> None:
        self.rows, self.mix, self.batch, self.seed, self.start = rows, mix, batch, seed, start
        (self.rank, self.world), self.prefetch, self.pin = share, prefetch, pin
        self._counts = np.array(mix.counts())
        self._edges = np.cumsum(self._counts)

    @property
    def batches_per_epoch(self) -> int:
        """Micro-batches of each rank that hold as many tokens as the text."""
        return max(1, len(self.rows.starts["packed"]) // (self.batch * self.world))

    def chosen(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Kinds [B] and row numbers [B] of micro-batch `number` on this rank."""
        first = (number * self.world + self.rank) * self.batch
        cycles, places = np.divmod(first + np.arange(self.batch), CYCLE)
        kinds, numbers = np.empty(self.batch, dtype=np.int64), np.empty(self.batch, dtype=np.int64)
        for i, (cycle, place) in enumerate(zip(cycles.tolist(), places.tolist())):
            ticket = int(permute_indices(np.array([place]), count=CYCLE, seed=self.seed, epoch=cycle)[0])
            kind = int(np.searchsorted(self._edges, ticket, side="right"))
            within = ticket - int(self._edges[kind] - self._counts[kind])
            total = len(self.rows.starts[KINDS[kind]])
            epoch, index = divmod(cycle * int(self._counts[kind]) + within, total)
            kinds[i] = kind
            numbers[i] = permute_indices(np.array([index]), count=total, seed=self.seed + 1 + kind, epoch=epoch)[0]
        return kinds, numbers

    def batch_at(self, number: int) -> Batch:
        """Micro-batch `number`: tokens, targets, positions and segments [B, T], kinds and ids [B], all int64."""
        return to_tensors(self.rows.rows(*self.chosen(number)), pin=self.pin)

    def __iter__(self) -> Iterator[Batch]:
        batches = self._from(self.start)
        return prefetch_batches(batches, self.prefetch) if self.prefetch else batches

    def _from(self, number: int) -> Iterator[Batch]:
        while True:
            yield self.batch_at(number)
            number += 1


class MixedData(LightningDataModule):
    """Text like that of TextData, whose training rows are short, packed and long ones; `context` is the long one.

    Validation rows and windows are those of TextData. Raises ConfigError, at the first use of the training rows, where
    `mix.original_len` is missing or not shorter than the context.
    """

    def __init__(
        self,
        source: Source,
        *,
        tokenizer: TokenizerRule | Tokenizer,
        context: PositiveInt,
        batch: PositiveInt,
        mix: Mix,
        seed: int = 0,
        val_batches: PositiveInt | None = 32,
        split: Split | None = None,
        cache: str | None = None,
    ) -> None:
        super().__init__()
        self.text = TextData(
            source,
            tokenizer=tokenizer,
            context=context,
            batch=batch,
            seed=seed,
            val_batches=val_batches,
            split=split,
            cache=cache,
        )
        self.mix, self.context, self.batch = mix, context, batch
        self._start = self._counted = 0

    @property
    def source(self) -> Any:
        return self.text.source

    @property
    def progress(self) -> Any:
        """Told of a cache being built."""
        return self.text.progress

    @progress.setter
    def progress(self, tell: Any) -> None:
        self.text.progress = tell

    @property
    def tokenizer(self) -> Tokenizer:
        return self.text.tokenizer

    @property
    def vocab_size(self) -> int:
        return self.text.vocab_size

    @property
    def fingerprint(self) -> str:
        """That of the text; shares and lengths are told by `state_dict`."""
        return self.text.fingerprint

    @property
    def store(self) -> Any:
        return self.text.store

    @property
    def bytes_per_token(self) -> float:
        return self.text.bytes_per_token

    def summary(self) -> dict[str, Any]:
        """What a result should say about its data."""
        kinds = {f"{kind}_rows": len(starts) for kind, starts in self.rows.starts.items()}
        return {**self.text.summary(), **self._kind(), **kinds}

    @cached_property
    def rows(self) -> MixedRows:
        """The training rows; raises ConfigError as said above."""
        original_len = self.mix.original_len
        if original_len is None:
            raise ConfigError(
                "mix.original_len=null, and the rope has none; set it to the length that the weights were trained with"
            )
        if original_len >= self.context:
            raise ConfigError(
                f"mix.original_len={original_len} must be shorter than context={self.context}, the length to "
                "reach; set rope.original_len to the trained length and context to the new one"
            )
        side = self.store.train
        return MixedRows(side.tokens, side.offsets, self.context, original_len)

    def prepare_data(self) -> None:
        """See TextData."""
        self.text.prepare_data()

    def setup(self, stage: str = "fit") -> None:
        """See TextData."""
        self.text.setup(stage)

    def train_dataloader(self) -> MixedLoader:
        """The endless loader of this rank, from the first micro-batch that was not trained on."""
        on_cuda = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        self._counted = self._told()["micro_batches"]
        return MixedLoader(
            self.rows,
            mix=self.mix,
            batch=self.batch,
            seed=self.text.seed,
            start=self._start,
            share=self._share(),
            prefetch=AHEAD if on_cuda else 0,
            pin=on_cuda,
        )

    def val_dataloader(self) -> ValLoader:
        """Rows of the long context."""
        self._tie()
        return self.text.val_dataloader()

    def windows(self, context: int | None = None, **asked: Any) -> Windows:
        """See TextData."""
        return self.text.windows(context, **asked)

    def epoch_of(self, micro_batches: int) -> float:
        """Passes over as many tokens as the text has."""
        return micro_batches / self.batches_per_epoch(self._share()[1])

    def batches_per_epoch(self, world: int) -> int:
        """Micro-batches of each of `world` devices that hold as many tokens as the text."""
        share = (0, world)
        return MixedLoader(self.rows, mix=self.mix, batch=self.batch, seed=0, share=share).batches_per_epoch

    def state_dict(self) -> dict[str, Any]:
        """Micro-batches trained on, and what makes their number meaningful."""
        told = self._told()
        return {**told, "micro_batches": self._start + told["micro_batches"] - self._counted, **self._kind()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken, at the same row where the global batch is another."""
        if self.trainer is not None and self.trainer.state.fn not in (None, TrainerFn.FITTING):
            return
        self._tie()
        self.check_state(state_dict)
        now = self.batch * self._share()[1]
        self._start = int(state_dict["micro_batches"]) * int(state_dict.get("global_batch", now)) // now

    def check_state(self, state_dict: dict[str, Any]) -> None:
        """CheckpointError when `state_dict` was taken from another text or other rows."""
        self.text.check_state(state_dict)
        for name, value in self._kind().items():
            before = state_dict.get(name, value)
            if before != value:
                raise CheckpointError(
                    f"the checkpoint was trained with mix.{name}={before}, now {value}; resume with what it had, "
                    "or start a new run from its weights with load=weights"
                )

    def _kind(self) -> dict[str, Any]:
        return {"original_len": self.mix.original_len, "shares": list(self.mix.counts())}

    def _told(self) -> dict[str, Any]:
        self._tie()
        return self.text.state_dict()

    def _share(self) -> tuple[int, int]:
        self._tie()
        return self.text._share()

    def _tie(self) -> None:
        """The inner module asks its trainer for ranks and counters."""
        self.text.trainer = self.trainer


def count_regime_tokens(batch: Batch, original_len: int) -> Tensor:
    """Tokens in sequences of at most `original_len` tokens, and in longer ones, by the positions of a batch; int64 [2].

    Nothing is read by the host.
    """
    ends, segments = batch["positions"] + 1, batch["segments"]
    lengths = segments.new_zeros(segments.shape[0], segments.shape[1] + 1)
    lengths.scatter_reduce_(1, segments, ends, "amax")
    short = (lengths.gather(1, segments) <= original_len).sum()
    return torch.stack((short, segments.numel() - short))
