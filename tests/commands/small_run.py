"""`aptlab train` in this process, on a small text of our own: about a second a run."""

from __future__ import annotations

from pathlib import Path

import aptlab
from aptlab.runs import Run, find_runs

CONTEXT = 32
SMALL = ("size=debug", "trainer=debug", "trainer.max_steps=2", "logger=csv", "device=cpu", f"context={CONTEXT}")


def texts(path: Path = Path("texts.jsonl"), *, documents: int = 30, words: int = 40) -> str:
    """Overrides' value for a text file that is made when it is not there."""
    from tests.commands.trained import write_texts

    return str(path if path.exists() else write_texts(path, documents=documents, words=words))


def words(*overrides: str) -> list[str]:
    data = ["data=text", f"data.files={texts()}", "data.split.val_fraction=0.3", "data.batch=4", "data.val_batches=2"]
    return [*SMALL, *data, *overrides]


def train(*overrides: str) -> Run:
    """Run to the end; the newest run folder, read back."""
    aptlab.train(words(*overrides))
    return newest()


def newest(root: str = "outputs") -> Run:
    return max(find_runs([root]), key=lambda found: found.path.stat().st_ctime_ns)
