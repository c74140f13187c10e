"""Every option of conf/smooth, and every form of left_spin, keeps the contract that ships to third parties."""

import functools
from pathlib import Path

import pytest
import torch

from aptlab.config import build, compose
from aptlab.nn.smooth import MemorySmooth, Plain, SiteInfo, Smooth
from aptlab.nn.smooth.step_history import StepHistory
from aptlab.testing import SmoothContract
from aptlab.testing.smooth import DIM, join_once

OPTIONS = sorted(path.stem for path in (Path(__file__).parents[2] / "conf" / "smooth").glob("*.yaml"))
LAWS = [name for name in dir(SmoothContract) if name.startswith("test_")]
POST = SiteInfo(depth=3, norm=False, norm_joined=True)
STEP = "strength.history=step"
# Words of an option, and what it promises: direction kept, small steps of the first block whole, a plain limit.
PROMISES = {
    "none": (["direction", "small"], []),
    "left_spin": (["direction", "small"], ["alpha=0.0"]),
    "left_spin gate.kind=cosine": (["small"], ["alpha=0.0", "gate.kind=cosine"]),  # beyond pi / 2 its step has none
    "left_spin gate.grad=through": (["direction", "small"], ["alpha=0.0", "gate.grad=through"]),
    "left_spin gate.learned=true": (["direction", "small"], []),
    f"left_spin {STEP}": (["direction", "small"], ["alpha=0.0", STEP]),
    "left_spin_seed": (["direction"], ["alpha=0.0"]),
    "left_spin_layerscale": ([], ["scale.start=1.0", "join.alpha=0.0"]),
    "softclip": (["direction", "small"], ["gate.bound=1e9"]),
    "memory": (["direction"], ["alpha=0.0"]),
    f"memory {STEP}": (["direction"], ["alpha=0.0", STEP]),
    "post_norm": ([], []),
    "rezero start=0.5": (["direction"], ["start=1.0"]),
    "layerscale": ([], ["start=1.0"]),
    "residual_scale": (["direction"], ["factor=1.0"]),
    "granite": (["direction"], ["factor=1.0"]),
    "depth_decay": (["direction"], ["last=1.0"]),
    "deepnorm": ([], []),
}


@functools.cache
def make_factory(option, *words):
    return build(
        compose("train", ["size=debug", f"smooth={option}", *(f"smooth.{word}" for word in words)]).resolved()["smooth"]
    )


def remember(factory, dim, *, layer, site):
    """A site that has learned something, so that what it learned acts."""
    join = factory(dim, layer=layer, site=site)
    for module in join.modules():
        if isinstance(module, MemorySmooth):
            directions = torch.randn(4, dim, generator=torch.Generator().manual_seed(layer))
            for _ in range(2):
                module.update(directions, torch.full((4,), 2.0))
        if isinstance(module, StepHistory):
            module.update(torch.tensor([0.5, 1.0]))
    return join


def make_contract(case):
    option, *words = case.split(" ")
    promised, limit = PROMISES[case]
    contract = SmoothContract()
    contract.factory = functools.partial(remember, make_factory(option, *words))
    contract.info = POST if option == "deepnorm" else SiteInfo(depth=3)
    contract.plain_limit = (Plain if option == "none" else None) if not limit else make_factory(option, *limit)
    contract.keeps_direction, contract.passes_small_steps = "direction" in promised, "small" in promised
    return contract


def test_no_option_is_left_out():
    assert {case.partition(" ")[0] for case in PROMISES} == set(OPTIONS)


@pytest.mark.parametrize("case", PROMISES)
def test_a_rule_keeps_every_law(case):
    contract, broken = make_contract(case), []
    for law in LAWS:
        try:
            getattr(contract, law)()
        except AssertionError as error:
            broken.append(f"{law}: {error}")
    assert broken == []


@pytest.mark.parametrize("case", PROMISES)
def test_a_rule_has_the_statistics_that_it_can_measure(case):
    site = make_contract(case).site().eval()
    u, delta = torch.randn(2, 5, DIM), torch.randn(2, 5, DIM)
    out, _, seen = join_once(site, u, delta, trace=True)
    angled = case.startswith(("left_spin", "softclip", "memory"))
    names = {"strength", "gate", "peak", "nonfinite"} | ({"angle", "danger"} if angled else set())
    assert seen.keys() == names
    assert seen["nonfinite"] == 0
    if case not in ("deepnorm", "left_spin_layerscale"):
        assert seen["gate"].item() == pytest.approx(
            ((out - u).norm(dim=-1) / delta.norm(dim=-1)).mean().item(), rel=1e-4
        )
    delta[1, 2, 3] = torch.nan
    assert join_once(site, u, delta, trace=True)[2]["nonfinite"] == 1


class Stateful(Smooth):
    """Breaks the contract: shrinks by the mean of the batch and counts its calls."""

    def __init__(self, dim, *, layer, site):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, u, delta, context):
        self.calls.add_(1)
        return u + delta / (1 + delta.mean() + self.calls)


class Outspoken(Smooth):
    """Breaks the contract: mixes tokens and channels, and has statistics that nobody asked for."""

    def __init__(self, dim, *, layer, site):
        super().__init__()
        self.mix = torch.nn.Linear(dim, dim)

    def forward(self, u, delta, context):
        context.set_trace({"peak": delta.amax(-1)})
        return u + self.mix(delta.cumsum(1))


@pytest.mark.parametrize(
    ("factory", "law", "message"),
    [
        (Stateful, "a_row_does_not_see_its_batch", "alone == in the batch: values differ by"),
        (Stateful, "a_token_changes_nothing_before_it", "causal over tokens: values differ by"),
        (Stateful, "cached_decoding_is_the_full_forward", "cached == full: values differ by"),
        (Stateful, "packed_documents_are_the_same_as_separate_ones", "packed == alone: values differ by"),
        (Stateful, "forward_changes_no_state", "the same input twice"),
        (Stateful, "an_inf_leaves_nothing_behind", "the other tokens beside one of inf"),
        (Outspoken, "tokens_in_another_order_give_the_same", "permuted tokens: values differ by"),
        (Outspoken, "statistics_are_detached_scalars_and_come_when_asked", "statistics that nobody asked for"),
        (Outspoken, "a_promised_direction_is_kept", "direction: values differ by"),
        (Outspoken, "small_steps_pass_whole_where_that_is_promised", "a small step of the first block"),
    ],
)
def test_a_layer_that_breaks_the_contract_is_caught(factory, law, message):
    contract = SmoothContract()
    contract.factory, contract.keeps_direction, contract.passes_small_steps = factory, True, True
    with pytest.raises(AssertionError, match=message):
        getattr(contract, f"test_{law}")()
