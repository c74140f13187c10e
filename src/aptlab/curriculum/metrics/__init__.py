"""How hard a row is: one number per row, larger is harder."""

from aptlab.curriculum.metrics.base import DifficultyMetric, ModelLoss
from aptlab.curriculum.metrics.mtld import MTLD
from aptlab.curriculum.metrics.text import CompressionRatio, TokenCount, UnigramNLL

__all__ = ["MTLD", "CompressionRatio", "DifficultyMetric", "ModelLoss", "TokenCount", "UnigramNLL"]
