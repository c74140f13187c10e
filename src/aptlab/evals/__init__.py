"""Measurements of a finished network: its loss at lengths it was not trained for."""

from aptlab.evals.fitting import fitting_windows
from aptlab.evals.lengths import Lengths, evaluate, evaluate_lengths

__all__ = ["Lengths", "evaluate", "evaluate_lengths", "fitting_windows"]
