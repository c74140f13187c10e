"""Many trainings, each in its own process, continued by repeating the command.

outputs/<job>/sweeps/<name>/ holds sweep.yaml (jobs and command), journal.jsonl (what happened), jobs/<number>-<what
differs>/ (one run folder each), and at the end table.{txt,md,csv} and figure.png as `aptlab compare` writes them.
"""

from aptlab.sweep.grid import Grid
from aptlab.sweep.optuna_search import OptunaSearch

__all__ = ["Grid", "OptunaSearch"]
