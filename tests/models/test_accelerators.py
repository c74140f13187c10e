"""What accelerators that compile whole programs (XLA, Gaudi) ask of a model, on tensors that have shapes and no values.

To read such a tensor on the host raises, and so does a shape that depends on values.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from aptlab.config import build, compose
from aptlab.config.search_path import read_option_index

GROUPS = ("rope", "bias", "embed", "attention")
OPTIONS = [(group, option) for group in GROUPS for option in sorted(read_option_index().groups[group])]
WIDE = {"dynamic", "learnable", "mixed2d"}  # frequencies that change: angles are products in float64
TOKENS, VOCAB = 48, 61


class Kinds(TorchDispatchMode):
    """Counts the types of numbers that operations give."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[torch.dtype] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.seen.update(leaf.dtype for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor))
        return out


@pytest.fixture(autouse=True)
def _no_autocast(monkeypatch):
    """The meta device, alone of all, has none that could be asked for."""
    monkeypatch.setattr(torch, "autocast", lambda *args, **rest: contextlib.nullcontext())
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *args: False)


def model_of(group: str, option: str) -> Any:
    """A debug decoder with one part chosen, without values."""
    alone = ["rope=none"] if group == "bias" else []
    config = compose("train", [f"{group}={option}", *alone, "size=debug", f"context={TOKENS}"])
    return build({**config.resolved()["model"], "vocab": VOCAB}).to("meta")


@pytest.mark.slow
@pytest.mark.parametrize(("group", "option"), OPTIONS, ids=["=".join(pair) for pair in OPTIONS])
def test_a_model_trains_and_decodes_with_static_shapes_and_nothing_read_on_the_host(group, option):
    net, tokens = model_of(group, option), torch.zeros(2, TOKENS, dtype=torch.long, device="meta")
    with Kinds() as kinds:
        net(tokens).logits.float().logsumexp(-1).sum().backward()
        net(tokens, positions=torch.zeros_like(tokens), segments=torch.ones_like(tokens))
        with torch.no_grad():
            cache = net.new_cache(2, TOKENS)
            net(tokens[:, :-1], cache=cache)
            logits = net(tokens[:, -1:], cache=cache).logits
    assert (logits.device.type, logits.shape) == ("meta", (2, 1, VOCAB))
    assert not {kind for kind in kinds.seen if kind.is_complex}
    assert (torch.float64 in kinds.seen) == (group == "rope" and option in WIDE)


@pytest.mark.parametrize("read", [torch.Tensor.item, bool, torch.nonzero], ids=["item", "bool", "nonzero"])
def test_a_read_on_the_host_raises_here(read):
    with pytest.raises((RuntimeError, NotImplementedError), match=r"meta|Cannot copy"):
        read(torch.zeros(1, device="meta"))
