"""A trained network under another position rule, without training."""

from __future__ import annotations

from typing import Any

from aptlab.config import build
from aptlab.models import Decoder
from aptlab.restore.load import LoadedModel, keep_fitting_weights

ROTARY = ("rotaries.",)  # where the decoder keeps the modules of its position rules


def replace_network_rope(loaded: LoadedModel, rope: dict[str, Any] | None) -> Decoder:
    """The network as trained, or the same weights under another position rule; in eval mode.

    rope  config node of the rule; None: that of the checkpoint

    Rotary tables are no weights; what a rule has learned itself stays with that rule, and another one begins anew.
    """
    if rope is None:
        return loaded.net
    model = loaded.config["model"]
    net = build({**model, "vocab": loaded.net.vocab, "positions": {**model["positions"], "rope": rope}}, "model")
    net.load_state_dict(keep_fitting_weights(loaded.net.state_dict(), net.state_dict(), ROTARY))
    return net.eval()
