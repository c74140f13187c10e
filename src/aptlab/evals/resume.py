"""What makes two evaluations the same, so that the second may go on where the first stopped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aptlab.checkpoint import read_manifest
from aptlab.config import redact_value
from aptlab.evals.context import EvalContext
from aptlab.evals.journal import ResultJournal
from aptlab.runs import FolderLock

VERSION = 1  # of prompts and sums; a change of these ends the use of older journals


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder; AptlabError when one is in it."""
    lock = FolderLock.take(folder)
    try:
        yield
    finally:
        lock.release()


def open_eval_journal(bench: EvalContext, lengths: Sequence[int], fingerprint: str | None) -> ResultJournal:
    """The journal in the evaluation's folder. AptlabError when it belongs to another request.

    A request is its weights (by their sha256, wherever the file lies), position rule, option of `eval`, lengths in
    tokens, text, tokenizer and precision; the device may change.
    """
    asked = {key: value for key, value in bench.wanted["eval"].items() if key not in ("lengths", "multiples")}
    request: dict[str, Any] = {
        "version": VERSION,
        "weights": read_manifest(bench.loaded.path).sha256,
        "step": bench.loaded.step,
        "rope": redact_value(bench.wanted.get("rope") or bench.loaded.config.get("rope")),
        "eval": {**asked, "lengths": list(lengths)},
        "text": fingerprint,
        "tokenizer": bench.tokenizer.key(),
        "precision": bench.precision,
    }
    return ResultJournal(bench.folder, request)
