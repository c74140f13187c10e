"""Tasks one after another: what they are, and at which step each ends. No torch."""

from aptlab.data.scenarios.base import NoScenario, Scenario
from aptlab.data.scenarios.clock import TaskClock, plan_task_ends
from aptlab.data.scenarios.domains import Domains
from aptlab.data.scenarios.images import ClassIncremental, DomainIncremental, ImageScenario
from aptlab.data.scenarios.texts import ClassIncrementalTexts

__all__ = [
    "ClassIncremental",
    "ClassIncrementalTexts",
    "DomainIncremental",
    "Domains",
    "ImageScenario",
    "NoScenario",
    "Scenario",
    "TaskClock",
    "plan_task_ends",
]
