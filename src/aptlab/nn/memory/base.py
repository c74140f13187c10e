"""What a memory tier owes: attention of a site that also keeps something of the segments before.

Legend: B rows, T tokens of a pass, K key/value heads, D head dim, C dim.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from aptlab.errors import AptlabError, ConfigError
from aptlab.nn.attention.base import Attention
from aptlab.nn.attention.full import FullAttention
from aptlab.nn.context import ForwardContext
from aptlab.nn.decay import ScaledRate
from aptlab.nn.positions.layer import LayerPositions
from aptlab.nn.shape import Shape


class Memory(Attention, abc.ABC):
    """Attention with a memory, built around a site's attention as factory(attention, shape, layer=index).

    It is functional: `mix_segment` takes the state of the tokens before and gives that after, and changes nothing. A
    state is a NamedTuple of tensors whose first dim is the rows; all zeros, as None, is a row that has kept nothing. It
    knows by its fields `seen` and `document` which document it is about, so that a new one in the row starts fresh.
    How a text is cut into passes changes nothing (but for xl, whose segments are the passes), so that cached generation
    is the forward pass of the whole text.

    layers  which layers have the memory: numbers from 0, or from -1 at the end; None = all
    """

    option: ClassVar[str] = "memory"

    def __init__(self, attention: Attention, shape: Shape, *, layer: int, layers: Sequence[int] | None = None) -> None:
        super().__init__()
        self.layer, self.shape, self.active = layer, shape, is_chosen(layer, layers, shape.depth)
        self.attention: Any = attention

    @abc.abstractmethod
    def init_state(self, rows: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Any:
        """The state of rows that have kept nothing: zeros."""

    @abc.abstractmethod
    def mix_segment(self, x_BTC: Tensor, state: Any, context: ForwardContext) -> tuple[Tensor, Any]:
        """What the site adds to the stream [B, T, C], and the state after it; `state` is None for rows without one."""

    @abc.abstractmethod
    def check_conflicts(self, positions: LayerPositions) -> None:
        """ConfigError for what of the attention or of its positions does not go with this memory."""

    def build_other(self, shape: Shape) -> Attention:
        """What a layer has that is not among `layers`."""
        del shape
        return self.attention

    def wrap_attention(self) -> Attention:
        """This memory, or what the layer has instead. ConfigError for attention that it cannot be built around."""
        if not self.active:
            other = self.build_other(self.shape)
            return other.wrap_attention() if isinstance(other, Memory) else other
        if not isinstance(self.attention, FullAttention):
            raise ConfigError(
                f"memory={self.option} is built around softmax attention, and this block has "
                f"{type(self.attention).__name__}; use attention=full, or memory=none"
            )
        if self.attention.window is not None:
            raise ConfigError(
                f"memory={self.option} decides itself which earlier tokens are seen, and layer {self.layer} has "
                f"window.size={self.attention.window}; use attention=full"
                + (" with memory.same_length=true, which is a window" if self.option == "xl" else "")
                + ", or memory=none"
            )
        return self

    @property
    def left_to_right(self) -> str:
        """Why no encoder has it."""
        return f"memory={self.option} reads from left to right"

    @property
    def max_keys(self) -> int:
        """0: the state stands for earlier keys."""
        return 0

    def bind_positions(self, positions: LayerPositions) -> None:
        """Also raises ConfigError for positions that do not go with the memory."""
        self.check_conflicts(positions)
        super().bind_positions(positions)
        self.attention.bind_positions(positions)

    def forward(self, x_BTC: Tensor, context: ForwardContext) -> Tensor:
        """The tokens with what is kept of those before; [B, T, C]."""
        if not context.causal:
            raise AptlabError(
                f"memory={self.option} reads from left to right, and this pass is not causal; use memory=none"
            )
        out_BTC, state = self.mix_segment(x_BTC, context.state, context)
        context.set_state(state)
        return out_BTC

    def output_matrices(self) -> tuple[nn.Linear, ...]:
        """Those of the attention."""
        return self.attention.output_matrices()

    def value_weights(self) -> tuple[Tensor, ...]:
        """Those of the attention."""
        return self.attention.value_weights()

    def reset_parameters(self, std: float, depth: int) -> None:
        """Draw the start of training: the attention its own, gates as they were built."""
        self.attention.reset_parameters(std, depth)
        self.reset_memory(std)

    def reset_memory(self, std: float) -> None:
        """Draw what the memory has beside the attention."""
        del std


class NoMemory(Memory):
    """A site that keeps nothing of segments before: its attention alone."""

    option = "none"

    def __init__(self, attention: Attention, shape: Shape, *, layer: int) -> None:
        super().__init__(attention, shape, layer=layer, layers=())

    def init_state(self, rows: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> None:
        """None."""
        del rows, device, dtype

    def mix_segment(self, x_BTC: Tensor, state: Any, context: ForwardContext) -> tuple[Tensor, Any]:
        """The attention."""
        return self.attention(x_BTC, context), state

    def check_conflicts(self, positions: LayerPositions) -> None:
        """There are none."""

    def count_flops(self, tokens: int) -> float:
        """Those of the attention."""
        return self.attention.count_flops(tokens)


class MemoryGate(ScaledRate):
    """One gate per head: out = g · memory + (1 - g) · local, g = sigmoid(bias); no decay, a learning rate of its own.

    init        bias at the start: 0 = half of each, -3 leaves a trained model as it is, nearly
    rate_scale  its learning rate in units of the model's
    """

    def __init__(self, heads: int, *, init: float, rate_scale: float) -> None:
        super().__init__(rate_scale)
        self.init = init
        self.bias = nn.Parameter(torch.full((heads,), float(init)))

    def forward(self, memory_BHTD: Tensor, local_BHTD: Tensor, found: Tensor) -> Tensor:
        """Both mixed where something was `found` (bool, broadcast to [B, H, T, D]), the local one elsewhere."""
        share = torch.sigmoid(self.bias.to(memory_BHTD.dtype)).view(1, -1, 1, 1)
        local_BHTD = local_BHTD.to(memory_BHTD.dtype)
        return torch.where(found, torch.lerp(local_BHTD, memory_BHTD, share), local_BHTD)

    def reset(self) -> None:
        """The bias of the start of training."""
        nn.init.constant_(self.bias, self.init)


def is_chosen(layer: int, layers: Sequence[int] | None, depth: int) -> bool:
    """Whether a layer is among `layers`, which may count from the end. ConfigError for one that there is not."""
    if layers is None:
        return True
    if wrong := [one for one in layers if isinstance(one, bool) or one not in range(-depth, depth)]:
        raise ConfigError(
            f"layers={list(layers)} of the memory has {wrong[0]!r}, and the model has layers 0 to {depth - 1}, "
            f"from the end -1 to {-depth}"
        )
    return layer in {one % depth for one in layers}


def check_rotation(option: str, positions: LayerPositions, head_dim: int) -> None:
    """ConfigError for positions that keys of an earlier segment cannot have."""
    rotary = positions.rotary
    if positions.chunk is not None:
        raise ConfigError(
            f"memory={option} reaches beyond a segment, and the rope keeps attention inside blocks of "
            f"{positions.chunk} positions; use another rope (irope: rope.chunk=null), or memory=none"
        )
    if rotary is None:
        return
    name = type(rotary.rule).__name__
    if rotary.rule.decay(head_dim) is not None:
        raise ConfigError(
            f"memory={option} keeps keys as they were rotated, and rope {name} also decays with distance; use another "
            "rope, or memory=none"
        )
    if rotary.adaptive:
        raise ConfigError(
            f"rope {name} rotates by the length of the whole text, and memory={option} keeps keys that were rotated "
            "before it was known; use a rope of one set of frequencies, or memory=none"
        )
