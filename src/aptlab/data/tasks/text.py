"""Tasks of text: each source is encoded, split and cut into rows by itself; the tokenizer is common."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from aptlab.data.module import TextData
from aptlab.data.rows.base import BatchPlan, RowTable
from aptlab.data.rows.epochs import EpochRows
from aptlab.data.rows.numbered import NumberedRows
from aptlab.data.scenarios import Domains, Scenario
from aptlab.data.sources import Joined, Source
from aptlab.data.store.split import Split
from aptlab.data.tasks.base import TaskData, count_rows, name_empty_task
from aptlab.data.tokenizers import Tokenizer, TokenizerRule
from aptlab.errors import ConfigError, DataError
from aptlab.limits import PositiveInt

ONE_TEXT = "a run over several tasks has no single text to measure on; name one, as in data=packed source=stdlib"


class TextTasks(TaskData):
    """Packed rows of `context` tokens of each domain of `scenario`, one domain after another.

    The other parameters are those of `TextData`; `val_batches` counts for each task. A tokenizer that is trained sees
    the training text of all tasks. Raises ConfigError and DataError, which name the task.
    """

    def __init__(
        self,
        scenario: Scenario,
        tokenizer: TokenizerRule | Tokenizer,
        *,
        context: PositiveInt,
        batch: PositiveInt,
        seed: int = 0,
        val_batches: PositiveInt | None = 8,
        split: Split | None = None,
        cache: str | None = None,
        verify: str = "auto",
    ) -> None:
        super().__init__(scenario, batch=batch, seed=seed, val_batches=val_batches)
        self.context = context
        self._options: dict[str, Any] = {"context": context, "batch": batch, "seed": seed}
        self._options |= {"split": split, "cache": cache, "verify": verify}
        self._rule = tokenizer

    @property
    def _sources(self) -> dict[str, Source]:
        if not isinstance(self.scenario, Domains):
            raise ConfigError(
                f"data=tasks reads texts, and {type(self.scenario).__name__} has none; choose scenario=domains, or "
                "data=packed for one text"
            )
        return dict(self.scenario.sources)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of all tasks; trains or reads it when first asked."""
        if isinstance(self._rule, Tokenizer):
            return self._rule
        return TextData(Joined(self._sources), self._rule, **self._options).tokenizer

    @cached_property
    def texts(self) -> dict[str, TextData]:
        """The data of each task by itself."""
        return {name: TextData(source, self.tokenizer, **self._options) for name, source in self._sources.items()}

    @property
    def vocab_size(self) -> int:
        """Tokens that the model needs."""
        return self.tokenizer.vocab_size

    @property
    def fingerprint(self) -> str:
        return self._key

    @cached_property
    def _key(self) -> str:
        parts = [[name, text.fingerprint] for name, text in self.texts.items()]
        return hashlib.sha256(json.dumps(["tasks-1", parts]).encode()).hexdigest()

    @cached_property
    def token_bytes(self) -> np.ndarray:
        """UTF-8 bytes that each token stands for, float64 [vocab], so that all validation texts have their size."""
        sizes, sides = self.tokenizer.count_bytes(), [text.store.val for text in self.texts.values()]
        found = sum(float(np.bincount(side.tokens, minlength=len(sizes)) @ sizes) for side in sides)
        written = sum(float(side.sizes.sum()) for side in sides)
        return sizes * (written / found) if found else np.full(len(sizes), 1.0)

    @property
    def val_text(self) -> str:
        """64 hex digits that name the validation texts of all tasks."""
        return hashlib.sha256(json.dumps([text.val_text for text in self.texts.values()]).encode()).hexdigest()

    def summary(self) -> dict[str, Any]:
        """The sums over all tasks, and the rows of each."""
        parts = [text.summary() for text in self.texts.values()]
        counts = {key: sum(part[key] for part in parts) for key, value in parts[0].items() if is_count(key, value)}
        facts = {"name": "+".join(self.task_names), "fingerprint": self.fingerprint, "vocab": self.vocab_size}
        return {**facts, "split": parts[0]["split"], "val_text": self.val_text, **counts}

    @property
    def store(self) -> Any:
        """DataError: tasks have a text each."""
        raise DataError(ONE_TEXT)

    def windows(self, context: int | None = None, *, multiples: Sequence[int] = (), tokens: int = 0) -> Any:
        """DataError: tasks have a text each."""
        del context, multiples, tokens
        raise DataError(ONE_TEXT)

    def prepare_data(self) -> None:
        """Build all caches and check the parts; Lightning calls it on one rank of each host."""
        for name, text in self.texts.items():
            try:
                text.prepare_data()
            except (DataError, ConfigError) as error:
                raise type(error)(name_empty_task(name, error)) from error
        if not count_rows(self.val_tables):
            raise DataError("scenario: no task has a validation row; use a larger split.val_fraction")

    def number_task_rows(self, side: str) -> list[NumberedRows]:
        return [text.number_rows(side) for text in self.texts.values()]

    @property
    def store_folder(self) -> Path:
        """The folder of all caches."""
        return next(iter(self.texts.values())).store_folder

    def make_tables(self, side: str) -> list[RowTable]:
        return [self._make_table(name, text, side) for name, text in self.texts.items()]

    def _make_table(self, name: str, text: TextData, side: str) -> RowTable:
        try:
            if side == "val":
                return text.rows.make_validation_table(text.store.val, context=self.context)
            rows = text.rows.make_rows(text.store.train, context=self.context, plan=BatchPlan(batch=1))
        except (DataError, ConfigError) as error:
            raise type(error)(name_empty_task(name, error)) from error
        assert isinstance(rows, EpochRows)  # of packed rows
        return rows.table


def is_count(key: str, value: Any) -> bool:
    """Whether a value of a summary adds up over texts: tokens, documents and bytes of a side."""
    return isinstance(value, int) and key.partition("_")[0] in ("train", "val")
