"""Loaders without workers: a batch is one copy out of the memory map, and a function of its number.

Legend: B rows per micro-batch, T tokens per row, W ranks, N rows of the corpus.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from aptlab.data.rows.order import permute_indices
from aptlab.data.rows.packed import Arrays, Packed
from aptlab.errors import ConfigError
from aptlab.objectives import IGNORE

Batch = dict[str, Tensor]
BLOCK = 64


class TokenLoader:
    """Training batches without end; has no length.

    Micro-batch n on rank r of W: epoch, i = divmod(n, batches_per_epoch), then rows
    order(epoch)[(i*W + r)*B : (i*W + r + 1)*B]. So ranks share out one global batch of W*B rows, resuming is
    starting at n, and up to W*B - 1 rows, others in each epoch, are left out of an epoch.

    `prefetch` batches are made ahead by a thread, `pin` puts them in page-locked memory. Raises ConfigError
    when W*B > N.
    """

    def __init__(
        self,
        rows: Packed,
        *,
        batch: int,
        seed: int,
        start: int = 0,
        rank: int = 0,
        world: int = 1,
        prefetch: int = 0,
        pin: bool = False,
    ) -> None:
        if batch * world > len(rows):
            raise ConfigError(
                f"data.batch={batch} on {world} device{'s' * (world > 1)} needs {batch * world} rows, but an epoch has "
                f"{len(rows)} rows of context={rows.context}; largest data.batch: {len(rows) // world}"
            )
        self.rows, self.batch, self.seed, self.start = rows, batch, seed, start
        self.rank, self.world, self.prefetch, self.pin = rank, world, prefetch, pin

    @property
    def batches_per_epoch(self) -> int:
        """Micro-batches of each rank until every row (but the remainder) was seen once."""
        return len(self.rows) // (self.batch * self.world)

    def row_ids(self, number: int, count: int = 1) -> np.ndarray:
        """Row numbers [count, B] of `count` micro-batches from `number` on this rank, all of one epoch."""
        epoch, i = divmod(number, self.batches_per_epoch)
        first = ((i + np.arange(count)) * self.world + self.rank) * self.batch
        places = first[:, None] + np.arange(self.batch)
        return permute_indices(places, count=len(self.rows), seed=self.seed, epoch=epoch)

    def batch_at(self, number: int) -> Batch:
        """Micro-batch `number`: tokens, targets [B,T] and ids [B], all int64; more with document masks."""
        return self._batch(self.row_ids(number)[0])

    def __iter__(self) -> Iterator[Batch]:
        batches = self._from(self.start)
        return prefetch_batches(batches, self.prefetch) if self.prefetch else batches

    def _from(self, number: int) -> Iterator[Batch]:
        while True:
            count = min(BLOCK, self.batches_per_epoch - number % self.batches_per_epoch)
            yield from map(self._batch, self.row_ids(number, count))
            number += count

    def _batch(self, ids: np.ndarray) -> Batch:
        return to_tensors(self.rows.rows(ids), pin=self.pin)


class ValLoader:
    """Validation batches in a fixed order, the same rows for every number of ranks; has a length.

    With `limit` rows or fewer asked for, they are spread evenly over the text. Rank r of W takes every W-th row.
    All batches have B rows, and all ranks the same number of batches: missing rows repeat another row with
    ids -1 and targets -100. A batch may consist of such rows only (W > 1), so sum losses and tokens over batches
    rather than averaging means.
    """

    def __init__(self, rows: Packed, *, batch: int, limit: int | None = None, rank: int = 0, world: int = 1) -> None:
        count = len(rows) if limit is None else min(limit, len(rows))
        self._chosen = np.arange(count, dtype=np.int64) * len(rows) // count
        self.rows, self.batch, self.rank, self.world = rows, batch, rank, world

    @property
    def tokens(self) -> int:
        """Targets on all ranks together."""
        return len(self._chosen) * self.rows.context

    def __len__(self) -> int:
        return -(-len(self._chosen) // (self.batch * self.world))

    def __iter__(self) -> Iterator[Batch]:
        mine = self._chosen[self.rank :: self.world]
        for i in range(len(self)):
            yield to_tensors(_filled(self.rows, mine[i * self.batch : (i + 1) * self.batch], self.batch))


def _filled(rows: Packed, ids: np.ndarray, batch: int) -> Arrays:
    """Rows `ids` and, up to `batch` rows, ignored copies of row 0."""
    missing = batch - len(ids)
    arrays = rows.rows(np.concatenate([ids, np.zeros(missing, dtype=np.int64)]))
    if missing:
        arrays["ids"][-missing:] = -1
        arrays["targets"][-missing:] = IGNORE
    return arrays


def to_tensors(arrays: Arrays, *, pin: bool = False) -> Batch:
    """The arrays as tensors without a copy, or copied once to page-locked memory."""
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    return {name: tensor.pin_memory() for name, tensor in tensors.items()} if pin else tensors


def prefetch_batches(batches: Iterator[Batch], depth: int) -> Iterator[Batch]:
    """Run `batches` in a thread, at most `depth` ahead; its exception is raised here, closing stops it."""
    ready: queue.Queue[Batch | BaseException | None] = queue.Queue(maxsize=depth)
    stop = threading.Event()
    thread = threading.Thread(target=_fill, args=(batches, ready, stop), name="aptlab-loader", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        thread.join()


def _fill(batches: Iterator[Batch], ready: queue.Queue, stop: threading.Event) -> None:
    try:
        for batch in batches:
            if not _put(ready, batch, stop):
                return
        _put(ready, None, stop)
    except BaseException as error:
        _put(ready, error, stop)


def _put(ready: queue.Queue, item: Batch | BaseException | None, stop: threading.Event) -> bool:
    """Wait for room; False once `stop` is set."""
    while not stop.is_set():
        try:
            ready.put(item, timeout=0.1)
        except queue.Full:
            continue
        return True
    return False
