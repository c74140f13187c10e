"""What is minimised: losses as functions and small modules, and the one token loss of the project.

`IGNORE`, `StepState`, `compute_perplexity` and the strategies of `Elastic` import no torch; the rest is loaded when
first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aptlab.lazy import load_on_demand
from aptlab.objectives.perplexity import IGNORE, compute_perplexity
from aptlab.objectives.step import StepState, get_step_state
from aptlab.objectives.widths import MeanWidths, SampleWidth, SandwichWidths, SumWidths, WidthStrategy

if TYPE_CHECKING:
    from aptlab.objectives.base import Objective
    from aptlab.objectives.cross_entropy import CrossEntropy
    from aptlab.objectives.dytox import DyToxLoss
    from aptlab.objectives.elastic import Elastic
    from aptlab.objectives.next_token import NextToken
    from aptlab.objectives.nll import compute_token_nll
    from aptlab.objectives.rehearsed import DarkExperience, ElasticWeights, LearningWithoutForgetting

__all__ = [
    "IGNORE",
    "CrossEntropy",
    "DarkExperience",
    "DyToxLoss",
    "Elastic",
    "ElasticWeights",
    "LearningWithoutForgetting",
    "MeanWidths",
    "NextToken",
    "Objective",
    "SampleWidth",
    "SandwichWidths",
    "StepState",
    "SumWidths",
    "WidthStrategy",
    "compute_perplexity",
    "compute_token_nll",
    "get_step_state",
]
_HOMES = {
    "CrossEntropy": "cross_entropy",
    "DarkExperience": "rehearsed",
    "DyToxLoss": "dytox",
    "Elastic": "elastic",
    "ElasticWeights": "rehearsed",
    "LearningWithoutForgetting": "rehearsed",
    "NextToken": "next_token",
    "Objective": "base",
    "compute_token_nll": "nll",
}

__getattr__ = load_on_demand(__name__, _HOMES)
