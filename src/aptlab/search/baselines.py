"""Losses of whole rules: those that need no search, against which a search is measured, and the one that is found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from aptlab.search.journal import SearchJournal
from aptlab.search.meter import CandidateScorer
from aptlab.search.objectives import MixedObjective, SearchObjective

Losses = Sequence[tuple[float, float]]  # of the answer and of the plain text, in nats, for each sample


def measure_rule_losses(
    journal: SearchJournal, scorer: CandidateScorer, name: str, rule: Any, *, target: int, samples: int
) -> Losses:
    """The losses of a rule on every sample of `target` tokens, from the journal where it has them."""
    if name not in journal.baselines:
        journal.add_baseline(name, scorer.losses(rule, target, range(samples)))
    return journal.baselines[name]


def calibrate_objective(objective: SearchObjective, losses: Losses) -> SearchObjective:
    """The objective with a reference rule's losses as its unit; only the mixed one has such a unit."""
    if not isinstance(objective, MixedObjective):
        return objective
    answer, text = average_losses(losses)
    return MixedObjective(answer=answer, text=text)


def score_losses(objective: SearchObjective, losses: Losses) -> float:
    """Mean of the objective over the samples."""
    return math.fsum(objective.value(*pair) for pair in losses) / len(losses)


def average_losses(losses: Losses) -> tuple[float, float]:
    """Mean losses of the answer and of the plain text, in nats."""
    answers, texts = zip(*losses, strict=True)
    return math.fsum(answers) / len(losses), math.fsum(texts) / len(losses)
