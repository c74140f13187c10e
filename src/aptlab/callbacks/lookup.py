"""What a callback finds in its trainer, with types that Lightning does not declare."""

from __future__ import annotations

from typing import Any, TypeVar

from lightning.pytorch import Trainer

T = TypeVar("T")


def get_datamodule(trainer: Trainer) -> Any:
    """The data module of the run, or None; Lightning 2.6 sets the attribute outside of its class."""
    return vars(trainer).get("datamodule")


def find_callbacks(trainer: Trainer, kind: type[T]) -> list[T]:
    """The run's callbacks of one kind, in their order; Lightning 2.6 sets the list outside of its class."""
    return [callback for callback in vars(trainer).get("callbacks", ()) if isinstance(callback, kind)]
