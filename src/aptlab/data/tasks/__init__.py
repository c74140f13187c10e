"""Data modules that give the rows of one task after another."""

from aptlab.data.tasks.base import StepSamples, TaskData, require_tasks
from aptlab.data.tasks.images import ImageTasks
from aptlab.data.tasks.labelled import LabelledTextTasks
from aptlab.data.tasks.text import TextTasks

__all__ = ["ImageTasks", "LabelledTextTasks", "StepSamples", "TaskData", "TextTasks", "require_tasks"]
