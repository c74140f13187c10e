"""What is learned: LightningModules that know the net, the objective and the optimizer."""

from aptlab.tasks.base import Task
from aptlab.tasks.classification import ClassificationTask
from aptlab.tasks.language import LanguageTask

__all__ = ["ClassificationTask", "LanguageTask", "Task"]
