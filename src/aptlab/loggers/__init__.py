"""Loggers: metrics.csv always, W&B when wanted. Importing this package imports no torch."""

from typing import TYPE_CHECKING, Any

from aptlab.loggers.tracking import Tracking

if TYPE_CHECKING:
    from aptlab.loggers.metrics import CSVMetrics
    from aptlab.loggers.wandb_run import WandbRun

__all__ = ["CSVMetrics", "Tracking", "WandbRun"]


def __getattr__(name: str) -> Any:
    """The logger classes, which need Lightning, loaded when first asked for."""
    if name == "CSVMetrics":
        from aptlab.loggers.metrics import CSVMetrics

        return CSVMetrics
    if name == "WandbRun":
        from aptlab.loggers.wandb_run import WandbRun

        return WandbRun
    raise AttributeError(f"module {__name__} has no attribute {name}")
