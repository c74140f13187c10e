"""Questions with a known answer, written to a length in tokens. No torch."""

from aptlab.evals.tasks.counting import CommonWords, FrequentWords
from aptlab.evals.tasks.haystack import Listed, Stored, Texts
from aptlab.evals.tasks.needle import Needle, PassKey
from aptlab.evals.tasks.questions import Questions
from aptlab.evals.tasks.ruler import ruler
from aptlab.evals.tasks.sample import Sample, Samples, Task
from aptlab.evals.tasks.tracking import Tracking

__all__ = [
    "CommonWords",
    "FrequentWords",
    "Listed",
    "Needle",
    "PassKey",
    "Questions",
    "Sample",
    "Samples",
    "Stored",
    "Task",
    "Texts",
    "Tracking",
    "ruler",
]
