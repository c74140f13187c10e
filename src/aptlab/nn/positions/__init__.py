"""How a model knows positions: rotation of queries and keys, a bias on scores, an addition to the embedding."""

from aptlab.nn.positions.group import Positions
from aptlab.nn.positions.layer import Growth, LayerPositions

__all__ = ["Growth", "LayerPositions", "Positions"]
