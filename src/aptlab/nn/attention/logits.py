"""What becomes of q·k before the softmax. No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from aptlab.limits import Positive, validate_limits


@dataclass(frozen=True, kw_only=True)
class LogitRule:
    """Logits of attention: z = scale · q·k, and with a softcap z' = softcap · tanh(z / softcap), within ± softcap.

    The cap is that of Gemma 2 (arXiv:2408.00118), after Bello et al. 2016 (arXiv:1611.09940). A bias of positions is
    added after it. None = 1 / sqrt(head_dim), and no cap.
    """

    scale: Positive | None = None
    softcap: Positive | None = None

    def __post_init__(self) -> None:
        validate_limits(self)

    def find_scale(self, head_dim: int) -> float:
        """The factor on q·k of heads of this size."""
        return 1 / math.sqrt(head_dim) if self.scale is None else float(self.scale)
