"""Tasks one after another: what they are, and at which step each ends. No torch."""

from aptlab.data.scenarios.base import NoScenario, Scenario
from aptlab.data.scenarios.clock import TaskClock, plan_task_ends
from aptlab.data.scenarios.domains import Domains

__all__ = ["Domains", "NoScenario", "Scenario", "TaskClock", "plan_task_ends"]
