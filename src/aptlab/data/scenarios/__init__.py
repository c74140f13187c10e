"""Tasks one after another: what they are, and at which step each ends. No torch."""

from aptlab.data.scenarios.base import NoScenario, Scenario
from aptlab.data.scenarios.clock import TaskClock, plan_task_ends
from aptlab.data.scenarios.domains import Domains
from aptlab.data.scenarios.images import ClassIncremental, DomainIncremental, ImageScenario

__all__ = [
    "ClassIncremental",
    "DomainIncremental",
    "Domains",
    "ImageScenario",
    "NoScenario",
    "Scenario",
    "TaskClock",
    "plan_task_ends",
]
