"""`aptlab train -m` with the fake trainer and without composing jobs; also a process that tests can kill."""

import sys
from pathlib import Path
from types import SimpleNamespace

from aptlab.cli import report_error
from aptlab.commands.sweep import run
from aptlab.errors import AptlabError

FAKE = (sys.executable, str(Path(__file__).with_name("fake_train.py")))


def unchecked(overrides: list[str]) -> SimpleNamespace:
    """Every job is right, at once: composing one takes longer than the fake trainer."""
    cfg = SimpleNamespace(paths=SimpleNamespace(root="outputs"), job="train")
    return SimpleNamespace(cfg=cfg, hash=lambda: "hash", resolved=dict)


def sweep(*args: str) -> int:
    return run(list(args), command=FAKE, compose_job=unchecked)


if __name__ == "__main__":
    try:
        sys.exit(sweep(*sys.argv[1:]))
    except AptlabError as error:
        sys.exit(report_error(error))
