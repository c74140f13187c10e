"""In which order rows are trained on: difficulty metrics, pacing functions, and the curricula made of them.

A curriculum is a rule that a config names; what it decides while training is the state of a `RowSchedule`. Neither
knows a model: what must be measured by one, a schedule asks for, and a callback answers. No torch.
"""

from aptlab.curriculum.base import Clock, Course, Curriculum, Decision, Probe, RandomOrder, RowSchedule
from aptlab.curriculum.campus import Campus
from aptlab.curriculum.metrics import MTLD, CompressionRatio, DifficultyMetric, ModelLoss, TokenCount, UnigramNLL
from aptlab.curriculum.pacing import BabySteps, CampusPacing, LinearPacing, Pacing, SqrtPacing
from aptlab.curriculum.sorting import SortedOrder
from aptlab.curriculum.stages import CompetenceGate, Stages

__all__ = [
    "MTLD",
    "BabySteps",
    "Campus",
    "CampusPacing",
    "Clock",
    "CompetenceGate",
    "CompressionRatio",
    "Course",
    "Curriculum",
    "Decision",
    "DifficultyMetric",
    "LinearPacing",
    "ModelLoss",
    "Pacing",
    "Probe",
    "RandomOrder",
    "RowSchedule",
    "SortedOrder",
    "SqrtPacing",
    "Stages",
    "TokenCount",
    "UnigramNLL",
]
