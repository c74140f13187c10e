"""Position methods that add to the attention scores instead of rotating queries and keys.

A module here is built as `factory(heads=, head_dim=, layer=)` and says of itself:

    relative    what it adds depends on distances alone, never on where in the text a token stands
    shared      one module serves all layers
    contextual  it looks at queries and keys, not at positions
"""

from aptlab.nn.positions.bias.alibi import ALiBi
from aptlab.nn.positions.bias.base import Formula, NoBias, PositionBias, ScoreBias
from aptlab.nn.positions.bias.cope import CoPE
from aptlab.nn.positions.bias.kerple import Kerple
from aptlab.nn.positions.bias.table import LearnedBias, T5Bias

__all__ = ["ALiBi", "CoPE", "Formula", "Kerple", "LearnedBias", "NoBias", "PositionBias", "ScoreBias", "T5Bias"]
