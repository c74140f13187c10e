"""Loggers: metrics.csv always, W&B where configured. Importing this package imports no torch."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from aptlab.loggers.tracking import Tracking

if TYPE_CHECKING:
    from aptlab.loggers.base import RunLogger
    from aptlab.loggers.metrics import CSVMetrics
    from aptlab.loggers.wandb_run import WandbRun

__all__ = ["CSVMetrics", "RunLogger", "Tracking", "WandbRun"]


MODULES = {"CSVMetrics": "metrics", "RunLogger": "base", "WandbRun": "wandb_run"}


def __getattr__(name: str) -> Any:
    """The logger classes, which need Lightning, loaded at their first use."""
    if name not in MODULES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(import_module(f"{__name__}.{MODULES[name]}"), name)
