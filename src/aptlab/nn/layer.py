"""What every layer of a block's site owes. Legend: B batch, T tokens, C dim."""

from __future__ import annotations

import abc
import math

from torch import Tensor, nn

from aptlab.errors import AptlabError, ConfigError
from aptlab.nn.context import ForwardContext
from aptlab.nn.init import OwnsInit, draw_weights
from aptlab.nn.width import FULL


class Layer(OwnsInit, nn.Module, abc.ABC):
    """A mixer or a feed-forward: x [B, T, C] -> what a site adds to the stream [B, T, C].

    Built by its block as `factory(shape, layer=index)` and called as `layer(x, context)`. What else a layer has to say
    goes into the slots of the context: a loss term, statistics, state. It runs twice in training under activation
    checkpointing, so forward changes nothing but these slots.
    """

    @abc.abstractmethod
    def forward(self, x_BTC: Tensor, context: ForwardContext) -> Tensor:
        """The layer's output [B, T, C] in the dtype of x."""

    def count_flops(self, tokens: int) -> float:
        """FLOPs per token beside those of its `nn.Linear` matrices (2 per weight), in a text of `tokens`."""
        del tokens
        return 0.0

    def skip_flops(self) -> float:
        """FLOPs per token of `nn.Linear` matrices that a token does not pass, as of experts that are not chosen."""
        return 0.0

    @property
    def widths(self) -> tuple[float, ...]:
        """Shares of its hidden units that the layer works with, largest first (`context.read_width`); (1.0,) = all."""
        return (FULL,)

    def keep_width(self, width: float) -> None:
        """Become the layer that a width is, with nothing beyond it. AptlabError for a layer that cannot."""
        raise AptlabError(f"{type(self).__name__} has the widths {self.widths} and no keep_width to become {width:g}")

    def skip_width_flops(self, width: float) -> float:
        """FLOPs per token of `nn.Linear` matrices that this width of the layer leaves out."""
        del width
        return 0.0

    def skip_width_parameters(self, width: float) -> int:
        """Parameters that this width of the layer leaves out."""
        del width
        return 0

    def output_matrices(self) -> tuple[nn.Linear, ...]:
        """The matrices that write to the stream: these start smaller in deep models."""
        return ()

    def value_weights(self) -> tuple[Tensor, ...]:
        """Weights from what the layer reads to what it writes, without those that only choose (queries, keys, routers).

        Rules such as DeepNorm start these smaller. ConfigError for a layer that does not say which they are.
        """
        raise ConfigError(
            f"{type(self).__name__} does not say which of its weights carry values; write value_weights, or use a "
            "smooth that starts no layer smaller"
        )

    def reset_parameters(self, std: float, depth: int) -> None:
        """Draw the start of training: matrices N(0, std), those that write to the stream N(0, std / sqrt(2 depth)).

        Biases become 0, what is neither `nn.Linear` nor `nn.Embedding` stays as built (GPT-2, Radford et al. 2019,
        section 2.3). A layer that starts in another way overrides this; the model never draws over it.
        """
        writers = {id(matrix) for matrix in self.output_matrices()}
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                draw_weights(module, std / math.sqrt(2 * depth) if id(module) in writers else std)
