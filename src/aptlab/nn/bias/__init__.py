"""Position methods that add to the attention scores instead of turning queries and keys.

A module here is built as `factory(heads=, head_dim=, layer=)` and says of itself:

    relative    what it adds depends on distances alone, never on where in the text a token stands
    shared      one module serves all layers
    contextual  it looks at queries and keys, not at positions
"""

from aptlab.nn.bias.alibi import ALiBi
from aptlab.nn.bias.base import Formula, NoBias, ScoreBias
from aptlab.nn.bias.cope import CoPE
from aptlab.nn.bias.kerple import Kerple
from aptlab.nn.bias.table import LearnedBias, T5Bias

__all__ = ["ALiBi", "CoPE", "Formula", "Kerple", "LearnedBias", "NoBias", "ScoreBias", "T5Bias"]
