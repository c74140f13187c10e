"""keras-hub: not measured yet in this table; benchmarks/runtimes.py has its environment and script. No torch."""

from __future__ import annotations

from aptlab.models.hf.readers.base import Reader

KERAS_HUB = Reader(name="keras-hub", versions=("keras-hub 0.32.0", "keras 3.15.1"), default={})
