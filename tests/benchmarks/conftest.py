"""Scripts of benchmarks/ as modules, each read anew for a test that asks for it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def load_benchmark(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """load_benchmark("search_report") is that script; what it imports by plain names is forgotten after the test."""
    loaded = ["common"]

    def load(name: str) -> ModuleType:
        loaded.append(name)
        for one in loaded:
            monkeypatch.delitem(sys.modules, one, raising=False)
        return importlib.import_module(name)

    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    yield load
    for one in loaded:
        sys.modules.pop(one, None)
