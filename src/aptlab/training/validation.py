"""How often a run is validated. No torch."""

from __future__ import annotations

from dataclasses import dataclass

from aptlab.limits import PositiveInt, validate_limits


@dataclass(frozen=True, kw_only=True)
class Validation:
    """The root key `validate` of a training configuration.

    every  optimizer steps between validations; null: at the end alone, or as trainer.val_check_interval says
    """

    every: PositiveInt | None = 100

    def __post_init__(self) -> None:
        validate_limits(self)
