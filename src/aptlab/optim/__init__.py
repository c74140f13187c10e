"""Optimizers and learning-rate schedules, as rules that make the torch objects."""

from aptlab.optim.adamw import AdamW, AdamW8bit
from aptlab.optim.schedule import WSD, Cosine

__all__ = ["WSD", "AdamW", "AdamW8bit", "Cosine"]
