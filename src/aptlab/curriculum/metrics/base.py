"""What a difficulty metric is, and the one that only a model can measure."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from aptlab.errors import ConfigError
from aptlab.limits import NonNegativeInt, validate_limits

if TYPE_CHECKING:
    import numpy as np

    from aptlab.data.rows.numbered import NumberedRows, RowContents


class DifficultyMetric(ABC):
    """How hard a row is, as one finite number: larger is harder. A frozen dataclass.

    version   of its formula: another one is computed anew where values are kept
    of_model  whether only a model can measure it, while it is trained
    """

    version: ClassVar[int] = 1
    of_model: ClassVar[bool] = False

    def fit(self, rows: NumberedRows) -> Any:
        """What `measure` needs to know of all training rows; nothing by default."""
        del rows

    @abstractmethod
    def measure(self, contents: RowContents, fitted: Any) -> np.ndarray:
        """The difficulty of some rows, float64 [B]; `fitted` is what `fit` gave for the training rows.

        Raises ConfigError where rows lack what it measures.
        """


@dataclass(frozen=True, kw_only=True)
class ModelLoss(DifficultyMetric):
    """Mean loss of a row by the model as it is when rows are sorted, in the unit of the objective (nats per token).

    refresh  choices of slices after which curriculum=campus measures it again; 0: once at the begin of a pass

    Every measurement is a forward pass over all rows that are still to come, which counts as probing.
    """

    of_model: ClassVar[bool] = True
    refresh: NonNegativeInt = 0

    def __post_init__(self) -> None:
        validate_limits(self)

    def measure(self, contents: RowContents, fitted: Any) -> np.ndarray:
        del contents, fitted
        raise ConfigError(
            "ModelLoss is measured by the model while it is trained, and not of the text alone; use it in "
            "curriculum=sorted, anti or campus, or take another metric"
        )
