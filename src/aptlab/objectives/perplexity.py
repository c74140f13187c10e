"""Nats per token as a perplexity, and the mark of targets that do not count. No torch."""

from __future__ import annotations

import math

IGNORE = -100  # a target that counts nowhere; torch's own default
LARGEST = 700.0  # exp of more nats overflows a float64 (from 709.8 on)


def compute_perplexity(nats: float) -> float:
    """exp(nats per token): inf in place of an overflow, nan for nan."""
    return math.inf if nats >= LARGEST else math.exp(nats)
