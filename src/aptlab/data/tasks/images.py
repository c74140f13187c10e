"""Tasks of images. Legend: B rows, N images, H W pixels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from aptlab.data.images import fingerprint_images
from aptlab.data.rows.base import RowTable
from aptlab.data.rows.numbered import NumberedRows, RowContents
from aptlab.data.rows.order import permute_indices
from aptlab.data.scenarios import ClassIncremental, DomainIncremental, ImageScenario, Scenario
from aptlab.data.tasks.base import TaskData
from aptlab.errors import ConfigError, DataError
from aptlab.limits import PositiveInt

if TYPE_CHECKING:
    from aptlab.data.rows.base import Arrays


@dataclass(frozen=True)
class ImageTable(RowTable):
    """Images [N, channels, H, W] and their classes [N], by number."""

    pixels: np.ndarray
    labels: np.ndarray
    context: int = 1

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, ids: np.ndarray) -> Arrays:
        """inputs float32 [B, channels, H, W], targets int64 [B], ids [B]."""
        ids = np.asarray(ids, dtype=np.int64)
        return {"inputs": self.pixels[ids], "targets": self.labels[ids], "ids": ids}


class ImageRows(NumberedRows):
    """Images by number; they hold their brightness in 256 steps, no tokens, and their class is in their name."""

    def __init__(self, table: ImageTable, *, side: str) -> None:
        self.table, self.side = table, side
        self.key = fingerprint_images(table.pixels, table.labels, [side])

    def __len__(self) -> int:
        return len(self.table)

    def read_rows(self, ids: np.ndarray) -> Arrays:
        return self.table.rows(ids)

    def read_contents(self, ids: np.ndarray) -> RowContents:
        pixels, low, high = self.table.pixels[ids], self.table.pixels.min(), self.table.pixels.max()
        steps = np.rint(255 * (pixels - low) / max(float(high - low), 1e-9)).astype(np.int64)
        return RowContents(ids=ids, tokens=list(steps.reshape(len(ids), -1)))

    def describe_row(self, number: int) -> str:
        """Number, side and class."""
        return f"{self.side} image {number} (class {self.table.labels[number]})"


class ImageTasks(TaskData):
    """The images of each task of `scenario`, one task after another; the parameters are those of `TaskData`.

    Raises ConfigError where the scenario has no images, DataError naming a task without any.
    """

    row_kind = "images"

    def __init__(
        self,
        scenario: Scenario,
        *,
        batch: PositiveInt,
        seed: int = 0,
        val_batches: PositiveInt | None = None,
    ) -> None:
        super().__init__(scenario, batch=batch, seed=seed, val_batches=val_batches)

    @property
    def images(self) -> ImageScenario:
        """The scenario, which is one of images."""
        if not isinstance(self.scenario, ImageScenario):
            raise ConfigError(
                f"data=image_tasks reads images, and {type(self.scenario).__name__} has none; choose "
                "scenario=split_digits"
            )
        return self.scenario

    @property
    def classes(self) -> int:
        """Classes of all tasks together."""
        return self.images.images.classes

    @cached_property
    def _loaded(self) -> tuple[np.ndarray, np.ndarray]:
        return self.images.images.load_images()

    @property
    def fingerprint(self) -> str:
        return self._key

    @cached_property
    def _key(self) -> str:
        return fingerprint_images(*self._loaded, [repr(self.images)])

    def summary(self) -> dict[str, Any]:
        counts = {"train_rows": len(self.joint_table), "val_rows": sum(map(len, self.val_tables))}
        return {"name": type(self.images.images).__name__.lower(), "fingerprint": self.fingerprint, **counts}

    def prepare_data(self) -> None:
        """Make the tables of both sides."""
        _ = self.joint_table, self.val_tables

    @cached_property
    def _labels(self) -> np.ndarray:
        return np.concatenate([table.labels for table in self.joint_table.tables if isinstance(table, ImageTable)])

    def find_labels(self, rows: np.ndarray) -> np.ndarray:
        return self._labels[rows]

    def number_task_rows(self, side: str) -> list[NumberedRows]:
        tables = self.joint_table.tables if side == "train" else self.val_tables
        return [ImageRows(table, side=side) for table in tables if isinstance(table, ImageTable)]

    def list_task_classes(self) -> list[list[int]] | None:
        return self.images.list_classes() if isinstance(self.images, ClassIncremental) else None

    def make_tables(self, side: str) -> list[RowTable]:
        pixels, labels = self._loaded
        held = self._find_held_out(labels)
        chosen = np.flatnonzero(held if side == "val" else ~held)
        tables = [self._make_table(pixels[chosen], labels[chosen], task) for task in range(self.images.tasks)]
        for name, table in zip(self.task_names, tables, strict=True):
            if not len(table):
                raise DataError(f"scenario: the task {name} has no {side} image; set another val_fraction")
        return list(tables)

    def _make_table(self, pixels: np.ndarray, labels: np.ndarray, task: int) -> ImageTable:
        scenario = self.images
        if isinstance(scenario, ClassIncremental):
            mine = np.isin(labels, scenario.list_classes()[task])
            return ImageTable(pixels[mine], labels[mine])
        assert isinstance(scenario, DomainIncremental)
        return ImageTable(scenario.transform.transform_images(pixels, task=task), labels)

    def _find_held_out(self, labels: np.ndarray) -> np.ndarray:
        """The images that are measured on, bool [N]: the same share of each class."""
        held = np.zeros(len(labels), dtype=bool)
        for label in range(self.classes):
            mine = np.flatnonzero(labels == label)
            order = permute_indices(np.arange(len(mine)), count=len(mine), seed=self.images.split_seed, epoch=label)
            held[mine[order[: round(self.images.val_fraction * len(mine))]]] = True
        return held
