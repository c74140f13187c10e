"""Questions with a known answer, written to a length in tokens. No torch."""

from aptlab.evals.tasks.counting import CommonWords, FrequentWords
from aptlab.evals.tasks.haystack import HaystackTexts, ListedTexts, StoredTexts
from aptlab.evals.tasks.needle import NeedleTask, PasskeyTask
from aptlab.evals.tasks.questions import QuestionAnswering
from aptlab.evals.tasks.ruler import build_ruler_tasks
from aptlab.evals.tasks.sample import SyntheticTask, TaskSample, TaskSampler
from aptlab.evals.tasks.tracking import VariableTracking

__all__ = [
    "CommonWords",
    "FrequentWords",
    "HaystackTexts",
    "ListedTexts",
    "NeedleTask",
    "PasskeyTask",
    "QuestionAnswering",
    "StoredTexts",
    "SyntheticTask",
    "TaskSample",
    "TaskSampler",
    "VariableTracking",
    "build_ruler_tasks",
]
