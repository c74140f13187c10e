"""RULER's 13 tasks by their published names (Hsieh et al. 2024, arXiv:2404.06654, tables 2 and 5). No torch."""

from __future__ import annotations

from typing import Literal

from aptlab.evals.tasks.counting import CommonWords, FrequentWords
from aptlab.evals.tasks.needle import Needle
from aptlab.evals.tasks.questions import Questions
from aptlab.evals.tasks.sample import Task
from aptlab.evals.tasks.tracking import Tracking

Haystack = Literal["noise", "text"]


def ruler(haystack: Haystack = "text") -> dict[str, Task]:
    """The tasks; where RULER takes essays, they take local text or noise.

    >>> len(ruler())
    13
    """
    tasks: list[Task] = [
        Needle(name="niah_single_1", haystack="noise"),
        Needle(name="niah_single_2", haystack=haystack),
        Needle(name="niah_single_3", haystack=haystack, value="uuid"),
        Needle(name="niah_multikey_1", haystack=haystack, keys=4),
        Needle(name="niah_multikey_2", haystack="needles"),
        Needle(name="niah_multikey_3", haystack="needles", key="uuid", value="uuid"),
        Needle(name="niah_multivalue", haystack=haystack, values=4),
        Needle(name="niah_multiquery", haystack=haystack, keys=4, queries=4),
        Tracking(name="vt"),
        CommonWords(name="cwe"),
        FrequentWords(name="fwe"),
        Questions(name="qa_1", hops=1, haystack=haystack),
        Questions(name="qa_2", hops=2, haystack=haystack),
    ]
    return {task.name: task for task in tasks}
