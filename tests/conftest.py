"""Shared by all tests: one thread, no network, no W&B, and a place for files that is not the user's."""

from __future__ import annotations

import gc
import os
import signal
from pathlib import Path

import pytest

from aptlab import redact

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.update(HF_HUB_OFFLINE="1", WANDB_MODE="offline", WANDB_SILENT="true", MPLBACKEND="Agg")


def pytest_configure() -> None:
    """Signals mean what they mean in a shell: a run leaves those alone that nohup or a background job ignores."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_DFL)


def pytest_collection_finish() -> None:
    """What is imported and collected stays: the collector of garbage need not look through it in every test."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """What is left at the end is given back, or libraries tell of leaks."""
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _quiet_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder: nothing of the user's is read, nothing is left behind."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(redact, "_seen", set())  # secrets of an earlier test are not this one's
    for name in ("APTLAB_RUN_DIR", "APTLAB_CKPT", "APTLAB_FAULT", "WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session", autouse=True)
def _shared_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Token caches are shared by the tests of one session, and never the user's own."""
    os.environ.setdefault("APTLAB_CACHE", str(tmp_path_factory.getbasetemp().parent / "aptlab-test-cache"))
