"""Cheap checks of a source and of rows, made before a run has a folder: a part that breaks its contract is told then.

`aptlab.testing` measures the whole contract; what is here reads a few documents and one batch.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from aptlab.data.rows.base import BatchPlan, Rows
from aptlab.data.sources import Source
from aptlab.errors import DataError

if TYPE_CHECKING:
    from aptlab.data.rows.base import Arrays

FIRST = 8  # documents that are read twice
PAIRS = ("tokens", "targets")  # what every batch has, with ids


def validate_source(source: Source, *, fingerprint: str) -> None:
    """Read the first documents twice; `fingerprint` is the one that the source gave.

    Raises DataError, naming the method, where the source breaks its contract.
    """
    name = type(source).__name__
    first, again = (list(itertools.islice(source.documents(), FIRST)) for _ in range(2))
    if first != again:
        raise DataError(
            f"{name}.documents() gave other documents when it was read again; it must give the same in a fixed order"
        )
    for document in first:
        if problem := find_document_problem(document):
            raise DataError(f"{name}.documents() gave {problem}")
    if problem := find_fingerprint_problem(fingerprint):
        raise DataError(f"{name}.fingerprint() {problem}")


def find_document_problem(document: Any) -> str | None:
    """Why `document` is no pair (name, text), or None."""
    if not isinstance(document, tuple) or [type(part) for part in document] != [str, str]:
        return f"{str(document)[:60]!r}, which is no pair (name, text) of strings"
    if not document[1]:
        return f"the document {document[0]!r} without text; leave it out and say so with note(…)"
    return None


def find_fingerprint_problem(fingerprint: Any) -> str | None:
    """Why `fingerprint` is none, or None."""
    digits = isinstance(fingerprint, str) and len(fingerprint) == 64 and set(fingerprint) <= set("0123456789abcdef")
    return None if digits else f"gave {str(fingerprint)[:60]!r}; it must give 64 hex digits, such as of a sha256"


def validate_rows(rows: Rows, *, context: int) -> None:
    """Make one batch twice. Raises DataError, naming the method, where rows break their contract."""
    name = type(rows).__name__
    if rows.batches_per_epoch < 1:
        raise DataError(f"{name}.batches_per_epoch is {rows.batches_per_epoch}; it must be 1 or more")
    batch = rows.batch(0)
    if problem := find_batch_problem(batch, rows.plan, context):
        raise DataError(f"{name}.batch(0) {problem}")
    rows.batch(1)
    again = rows.batch(0)
    if batch.keys() != again.keys() or any(not np.array_equal(batch[key], again[key]) for key in batch):
        raise DataError(f"{name}.batch(0) was another batch after batch(1); it must depend on the number alone")
    if missing := {"seed", "context", "global_batch"} - rows.state().keys():
        raise DataError(f"{name}.state() says nothing of {', '.join(sorted(missing))}; a resumed run needs it")


def find_batch_problem(batch: Arrays, plan: BatchPlan, context: int) -> str | None:
    """What is wrong with the names, types and shapes of a batch, or None."""
    if missing := {*PAIRS, "ids"} - batch.keys():
        return f"has no {', '.join(sorted(missing))}; a batch holds tokens, targets and ids"
    for key, array in batch.items():
        if array.dtype != np.int64:
            return f"has {key} of {array.dtype}; all arrays of a batch are int64"
        if array.shape[:1] != (plan.batch,):
            return f"has {key} of {list(array.shape)}; the first size is the batch, {plan.batch} rows"
    target = batch.get("decoder_tokens", batch["tokens"]).shape  # of rows of pairs, whose tokens are the source
    for key, shape in (("tokens", (plan.batch, context)), ("targets", target)):
        if batch[key].shape != shape:
            words = (
                "[batch, context]" if "decoder_tokens" not in batch or key == "tokens" else "those of decoder_tokens"
            )
            return f"has {key} of {list(batch[key].shape)}; they are {words} = {list(shape)}"
    return None
