"""Loaders without workers: a batch is one copy out of the memory map, and a function of its number."""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from aptlab.data.rows.base import Rows

if TYPE_CHECKING:
    from aptlab.data.rows.base import Arrays
    from aptlab.data.rows.epochs import ValidationRows

Batch = dict[str, Tensor]


class RowLoader:
    """Training batches of any kind of rows, without end, from micro-batch `start` on; has no length.

    `prefetch` batches are made ahead by a thread, `pin` puts them in page-locked memory. With `late`, it gives the
    numbers of batches alone, for Lightning asks for one batch more than it trains on, and an order that changes with
    training must not be asked before its time; who takes a number makes the batch with `batch_at`.
    """

    def __init__(self, rows: Rows, *, start: int = 0, prefetch: int = 0, pin: bool = False, late: bool = False) -> None:
        self.rows, self.start, self.prefetch, self.pin, self.late = rows, start, prefetch, pin, late

    def batch_at(self, number: int) -> Batch:
        """Micro-batch `number` as tensors: tokens and targets [B,T], ids [B], all int64; more where rows have it."""
        return to_tensors(self.rows.batch(number), pin=self.pin)

    def __iter__(self) -> Iterator[Any]:
        if self.late:
            return itertools.count(self.start)
        batches = map(self.batch_at, itertools.count(self.start))
        return prefetch_batches(batches, self.prefetch) if self.prefetch else batches


class ValLoader:
    """Validation batches in a fixed order; its length is the number of batches of this rank."""

    def __init__(self, rows: ValidationRows) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Batch]:
        return (to_tensors(self.rows.batch(number)) for number in range(len(self.rows)))


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
