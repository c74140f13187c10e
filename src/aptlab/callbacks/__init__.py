"""Everything with a clock: numbers, progress, checkpoints, stopping, guarding."""

from aptlab.callbacks.base import RunAware, RunContext

__all__ = ["RunAware", "RunContext"]
