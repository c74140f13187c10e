"""What is learned: LightningModules that know the net, the objective and the optimizer."""

from aptlab.tasks.base import Task
from aptlab.tasks.classification import ClassificationTask
from aptlab.tasks.language import LanguageTask
from aptlab.tasks.seq2seq import Seq2SeqTask

__all__ = ["ClassificationTask", "LanguageTask", "Seq2SeqTask", "Task"]
