"""RULER's 13 tasks by their published names (Hsieh et al. 2024, arXiv:2404.06654, tables 2 and 5). No torch."""

from __future__ import annotations

from typing import Literal

from aptlab.evals.tasks.counting import CommonWords, FrequentWords
from aptlab.evals.tasks.needle import NeedleTask
from aptlab.evals.tasks.questions import QuestionAnswering
from aptlab.evals.tasks.sample import SyntheticTask
from aptlab.evals.tasks.tracking import VariableTracking

Haystack = Literal["noise", "text"]


def build_ruler_tasks(haystack: Haystack = "text") -> dict[str, SyntheticTask]:
    """The tasks; where RULER takes essays, they take local text or noise.

    >>> len(ruler())
    13
    """
    tasks: list[SyntheticTask] = [
        NeedleTask(name="niah_single_1", haystack="noise"),
        NeedleTask(name="niah_single_2", haystack=haystack),
        NeedleTask(name="niah_single_3", haystack=haystack, value="uuid"),
        NeedleTask(name="niah_multikey_1", haystack=haystack, keys=4),
        NeedleTask(name="niah_multikey_2", haystack="needles"),
        NeedleTask(name="niah_multikey_3", haystack="needles", key="uuid", value="uuid"),
        NeedleTask(name="niah_multivalue", haystack=haystack, values=4),
        NeedleTask(name="niah_multiquery", haystack=haystack, keys=4, queries=4),
        VariableTracking(name="vt"),
        CommonWords(name="cwe"),
        FrequentWords(name="fwe"),
        QuestionAnswering(name="qa_1", hops=1, haystack=haystack),
        QuestionAnswering(name="qa_2", hops=2, haystack=haystack),
    ]
    return {task.name: task for task in tasks}
