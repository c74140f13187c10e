"""Lightning's banner would bury a failing fault test."""

from __future__ import annotations

import logging

import pytest


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    for name in ("lightning.pytorch", "lightning.fabric", "lightning_utilities"):
        monkeypatch.setattr(logging.getLogger(name), "propagate", False)
        monkeypatch.setattr(logging.getLogger(name), "level", logging.ERROR)
