"""Left-spin smoothing: its laws, and equality with the float64 reference."""

from __future__ import annotations

import math

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from aptlab.errors import ConfigError
from aptlab.nn.smooth import Carry, Gate, LeftSpin, LeftSpinSeed, MemorySmooth, Plain, SpinRule, Strength
from aptlab.testing.smooth import join_once
from tests.reference import smooth as reference

DIM = 16
KINDS = ["normalized", "cosine", "softclip"]


def make(layer=0, **kwargs):
    return LeftSpin(DIM, layer=layer, site="ffn", **kwargs)


def pair(seed=0, size=1.0, shape=(2, 5), dtype=torch.float32):
    """A stream, a step about `size` times as large (it varies per token), and a carry."""
    rng = torch.Generator().manual_seed(seed)
    u, delta, step = (torch.randn(*shape, DIM, generator=rng, dtype=torch.float64) for _ in range(3))
    delta = delta * size * torch.exp(2 * torch.randn(*shape, 1, generator=rng, dtype=torch.float64))
    phi = torch.rand(*shape, 1, generator=rng, dtype=torch.float64)
    return u.to(dtype), delta.to(dtype), Carry(step.to(dtype), phi.to(dtype))


def all_layers():
    memory = MemorySmooth(DIM, layer=0, site="ffn")
    for age in range(3):
        memory.update(torch.eye(4, DIM), torch.tensor([3.0, 2.0, 1.5, 1.0 + age]))
    gates = [make(gate=Gate(kind=kind)) for kind in KINDS]
    return [Plain(DIM, layer=0, site="ffn"), *gates, LeftSpinSeed(DIM, layer=0, site="ffn"), memory]


def name(layer):
    return f"{type(layer).__name__}-{layer.rule.gate.kind}" if isinstance(layer, LeftSpin) else type(layer).__name__


every_layer = pytest.mark.parametrize("layer", all_layers(), ids=name)


def chain(layers, u, deltas):
    carry, carries = None, []
    for layer, delta in zip(layers, deltas):
        u, carry, _ = join_once(layer, u, delta, carry)
        carries.append(carry)
    return u, carries


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_four_blocks_equal_the_reference(kind, dtype):
    numbers = {"alpha": 1.3, "tau": 0.4, "beta": 0.6}
    strength, gate = Strength(w1=0.9, w2=0.7, reference=0.5), Gate(kind=kind, kappa=5.0, bound=1.2)
    layers = [make(i, **numbers, strength=strength, gate=gate) for i in range(4)]
    stream, _, _ = pair(0, dtype=dtype)
    deltas = [pair(10 + i, 0.7, dtype=dtype)[1] for i in range(4)]
    out, carries = chain(layers, stream, deltas)
    rest = {"kappa": 5.0, "w1": 0.9, "w2": 0.7, "reference": 0.5, "kind": kind, "bound": 1.2}
    for b in range(2):
        for t in range(5):
            u, carry = stream[b, t].tolist(), None
            for delta in deltas:
                u, step, phi, _, _ = reference.left_spin(u, delta[b, t].tolist(), carry, **numbers, **rest)
                carry = (step, phi)
            expected = torch.tensor(u, dtype=torch.float64)
            assert torch.allclose(
                out[b, t].double(), expected, rtol=1e-6, atol=1e-6 if dtype == torch.float64 else 1e-5
            )
            if kind != "softclip":
                assert carries[-1].phi[b, t].item() == pytest.approx(phi, rel=1e-6 if dtype == torch.float64 else 1e-4)


def test_the_seed_formula_equals_the_reference():
    numbers = {"alpha": 0.5, "tau": 0.3, "beta": 0.7}
    layers = [LeftSpinSeed(DIM, layer=i, site="ffn") for i in range(3)]
    stream, deltas = pair(1, dtype=torch.float64)[0], [pair(20 + i, dtype=torch.float64)[1] for i in range(3)]
    out, _ = chain(layers, stream, deltas)
    u, carry = stream[1, 2].tolist(), None
    for delta in deltas:
        u, step, phi, _, _ = reference.seed_spin(u, delta[1, 2].tolist(), carry, **numbers)
        carry = (step, phi)
    assert torch.allclose(out[1, 2], torch.tensor(u, dtype=torch.float64), rtol=1e-9)


def test_the_seed_gate_shrinks_even_a_vanishing_step_and_left_spin_does_not():
    u, delta, _ = pair(size=1e-7, dtype=torch.float64)
    gate = {type(layer): join_once(layer, u, delta, None, trace=True)[2]["gate"] for layer in all_layers()[1:5]}
    assert gate[LeftSpin].item() == pytest.approx(1.0, abs=1e-12)
    assert gate[LeftSpinSeed].item() == pytest.approx(0.9637, abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_small_steps_pass_unchanged(kind):
    u, delta, _ = pair(size=1e-6)
    assert torch.equal(join_once(make(gate=Gate(kind=kind)), u, delta)[0], u + delta)


@every_layer
def test_the_direction_of_the_step_is_kept(layer):
    u, delta, carry = pair(size=3.0, dtype=torch.float64)
    moved = join_once(layer, u, delta, carry)[0] - u
    cosine = torch.nn.functional.cosine_similarity(moved, delta, dim=-1)
    dead = moved.norm(dim=-1) < 1e-9  # only the cosine gate has these
    assert torch.allclose(cosine[~dead], torch.ones_like(cosine[~dead]), atol=1e-6)
    assert name(layer) == "LeftSpin-cosine" or not dead.any()


def relative_steps(layer, sizes=None):
    """rms(u' - u) / (rms(u) + guard) over a wide range of step sizes."""
    u = torch.randn(1, 4000, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    delta = u.flip(-1) * torch.logspace(-3, 5, 4000, dtype=torch.float64)[:, None]
    moved = join_once(layer, u, delta, None)[0] - u
    size = u.square().mean(-1).add(1e-12).sqrt() + 1e-3 * layer.rule.strength.reference
    return moved.square().mean(-1).sqrt() / size


def test_softclip_moves_the_stream_by_at_most_its_bound():
    moved = relative_steps(make(gate=Gate(kind="softclip", bound=0.8)))
    assert moved.max() <= 0.8 + 1e-12
    assert moved.max() > 0.79
    assert (moved.diff() > -1e-12).all()


@pytest.mark.parametrize("kind", ["normalized", "cosine"])
@pytest.mark.parametrize("numbers", [{}, {"alpha": 0.5, "tau": 0.3}, {"alpha": 3.0, "tau": 0.0}])
def test_the_reach_of_the_gate_is_its_least_upper_bound(kind, numbers):
    layer = make(gate=Gate(kind=kind), strength=Strength(history="none"), **numbers)
    moved, reach = relative_steps(layer), layer.rule.step_bound()
    assert moved.max() <= reach * (1 + 1e-9)
    assert moved.max() >= reach * (1 - 1e-3)


def test_the_reach_holds_with_depth_history_and_random_steps():
    layer = make()
    for seed in range(20):
        u, delta, carry = pair(seed, 2.0, (8, 64), torch.float64)
        size = u.square().mean(-1).add(1e-12).sqrt() + 1e-3 * layer.rule.strength.reference
        moved = (join_once(layer, u, delta, carry)[0] - u).square().mean(-1).sqrt() / size
        assert moved.max() <= layer.rule.step_bound()


def test_the_published_reach_of_the_normalized_gate():
    assert SpinRule().step_bound() == pytest.approx(1.5143, abs=1e-4)
    assert SpinRule(beta=1.0).step_bound() == pytest.approx(1.1191, abs=1e-4)
    assert SpinRule(alpha=0.0).step_bound() == math.inf


@every_layer
def test_tokens_and_rows_do_not_see_each_other(layer):
    u, delta, carry = pair(3, dtype=torch.float64)
    layer.eval()
    whole = join_once(layer, u, delta, carry)[0]
    rows, tokens = torch.tensor([1, 0]), torch.tensor([3, 0, 4, 1, 2])
    mixed = join_once(layer, *(x[rows][:, tokens] for x in (u, delta)), Carry(*(x[rows][:, tokens] for x in carry)))[0]
    assert torch.equal(mixed, whole[rows][:, tokens])
    alone = join_once(layer, u[:1], delta[:1], Carry(carry.step[:1], carry.phi[:1]))[0]
    assert torch.allclose(alone, whole[:1], rtol=0, atol=1e-14)


@every_layer
def test_a_later_token_changes_no_earlier_one(layer):
    u, delta, carry = pair(4)
    before = join_once(layer, u, delta, carry)[0]
    delta[:, 3] = 1e4
    after = join_once(layer, u, delta, carry)[0]
    assert torch.equal(before[:, :3], after[:, :3])
    assert not torch.equal(before[:, 3], after[:, 3])


@every_layer
def test_cached_decoding_equals_the_full_pass(layer):
    u, delta, carry = pair(5, dtype=torch.float64)
    layer.eval()
    full, cuts = join_once(layer, u, delta, carry)[0], (slice(0, 2), slice(2, 3), slice(3, 5))
    parts = [join_once(layer, u[:, cut], delta[:, cut], Carry(*(x[:, cut] for x in carry)))[0] for cut in cuts]
    assert torch.allclose(torch.cat(parts, 1), full, rtol=0, atol=1e-14)


@every_layer
def test_alpha_zero_or_none_is_the_plain_residual(layer):
    if isinstance(layer, LeftSpin | MemorySmooth):
        layer = type(layer)(DIM, layer=0, site="ffn", alpha=0.0)
    elif isinstance(layer, LeftSpinSeed):
        layer = LeftSpinSeed(DIM, layer=0, site="ffn", alpha=0.0)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        u, delta, _ = pair(6, 2.0, dtype=dtype)
        assert torch.equal(join_once(layer, u, delta, None)[0], u + delta)


@every_layer
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_zero_stream_stays_finite_and_keeps_its_dtype(layer, dtype):
    u, delta = torch.zeros(2, 3, DIM, dtype=dtype), torch.ones(2, 3, DIM, dtype=dtype)
    for step in (delta, torch.zeros_like(delta), delta * 60000):
        out, carry, seen = join_once(layer, u, step, None, trace=True)
        assert out.dtype == dtype
        assert out.isfinite().all()
        assert carry is None or carry.phi.isfinite().all()
        assert all(value.isfinite().all() for value in seen.values())


@every_layer
def test_an_inf_leaves_nothing_behind(layer):
    u, delta, _ = pair(7)
    clean = join_once(layer, u, delta, None)[0]
    bad = delta.clone()
    bad[0, 1, 0] = math.inf
    spoilt = join_once(layer, u, bad, None, trace=True)[0]
    assert not spoilt[0, 1].isfinite().all()
    others = torch.ones(2, 5, dtype=torch.bool)
    others[0, 1] = False
    assert torch.equal(spoilt[others], clean[others])
    assert torch.equal(join_once(layer, u, delta, None)[0], clean)


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_zero_token_drops_the_bad_step_and_counts_it(value):
    layers = [make(i, gate=Gate(nonfinite="zero_token")) for i in range(2)]
    u, delta, _ = pair(8)
    bad = delta.clone()
    bad[1, 2, 3] = value
    out, carry, seen = join_once(layers[0], u, bad, None, trace=True)
    assert torch.equal(out[1, 2], u[1, 2])
    assert seen["nonfinite"].item() == 1
    out, carry, seen = join_once(layers[1], out, delta, carry, trace=True)
    assert out.isfinite().all()
    assert seen["nonfinite"].item() == 0


def test_propagate_counts_too():
    u, delta, _ = pair(8)
    delta[1, 2, 3] = math.nan
    assert join_once(make(), u, delta, None, trace=True)[2]["nonfinite"].item() == 1


@pytest.mark.parametrize("kind", KINDS)
def test_no_gradient_passes_through_a_detached_gate(kind):
    u, delta, carry = pair(9, 2.0, dtype=torch.float64)
    u.requires_grad_(), delta.requires_grad_()
    layer = make(gate=Gate(kind=kind))
    out, after, _ = join_once(layer, u, delta, carry)
    weight = torch.randn_like(out)
    by_u, by_delta = torch.autograd.grad((out * weight).sum(), (u, delta))
    g = layer.join(u, delta, carry).gate
    assert torch.equal(by_u, weight)
    assert torch.allclose(by_delta, weight * g, rtol=1e-12)
    assert after is None or not (after.step.requires_grad or after.phi.requires_grad)


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_through_the_gate_is_right(kind):
    u, delta, carry = pair(10, 0.5, shape=(1, 3), dtype=torch.float64)
    layer = make(alpha=0.6, gate=Gate(kind=kind, grad="through"))
    inputs = (u.requires_grad_(), delta.requires_grad_())
    assert torch.autograd.gradcheck(lambda a, b: join_once(layer, a, b, carry)[0], inputs, rtol=1e-5, atol=1e-8)
    detached = torch.autograd.grad(join_once(make(alpha=0.6, gate=Gate(kind=kind)), u, delta, carry)[0].sum(), u)[0]
    out, after, _ = join_once(layer, u, delta, carry)
    assert not torch.allclose(detached, torch.autograd.grad(out.sum(), u)[0])
    assert after is None or not (after.step.requires_grad or after.phi.requires_grad)


@every_layer
def test_recomputation_gives_the_same_output_and_gradient(layer):
    layer.train()
    u, delta, carry = pair(11)

    def run(recompute):
        a, b = u.clone().requires_grad_(), delta.clone().requires_grad_()
        call = lambda x, y: join_once(layer, torch.tanh(x), torch.sin(y), carry)[0]  # noqa: E731
        out = checkpoint(call, a, b, use_reentrant=False) if recompute else call(a, b)
        return out.detach(), *torch.autograd.grad(out.square().sum(), (a, b))

    for kept, again in zip(run(False), run(True)):
        assert torch.equal(kept, again)


@every_layer
@pytest.mark.parametrize("trace", [False, True])
def test_compiles_as_one_graph(layer, trace):
    layer.train()
    u, delta, carry = pair(12)
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    for at in (None, carry):
        out, expected = join_once(compiled, u, delta, at, trace=trace), join_once(layer, u, delta, at, trace=trace)
        assert torch.allclose(out[0], expected[0])
        assert (out[2] or {}).keys() == (expected[2] or {}).keys()


def test_autocast_does_not_lower_the_precision():
    u, delta, carry = pair(13)
    for layer in all_layers():
        plain = join_once(layer, u, delta, carry)[0]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(join_once(layer, u, delta, carry)[0], plain)


def test_history_none_is_no_weight_on_turns_and_no_inertia():
    u, delta, carry = pair(14)
    none = make(strength=Strength(history="none"))
    same = make(beta=1.0, strength=Strength(w2=0.0))
    assert torch.equal(join_once(none, u, delta, carry)[0], join_once(same, u, delta, carry)[0])
    assert join_once(none, u, delta, carry)[1] is None


@every_layer
def test_the_trace_holds_token_means_and_only_when_asked(layer):
    layer.eval()
    u, delta, carry = pair(15)
    out, _, seen = join_once(layer, u, delta, carry, trace=True)
    assert seen["peak"].item() == out.abs().max().item()
    assert join_once(layer, u, delta, carry)[2] is None
    if not isinstance(layer, Plain):
        assert {"strength", "angle", "gate", "danger", "nonfinite"} <= seen.keys()
        assert all(value.shape == () and not value.requires_grad for value in seen.values())
        moved = (out - u).norm(dim=-1) / delta.norm(dim=-1)
        assert seen["gate"].item() == pytest.approx(moved.mean().item(), abs=1e-4)


def test_the_automatic_bound_limits_the_growth_of_the_stream():
    layer = make(tau=0.1, gate=Gate(kind="softclip", bound=None, growth=100.0, depth=3))
    u = torch.full((1, 1, DIM), 1.0, dtype=torch.float64)
    start = u.norm()
    for _ in range(6):
        u = join_once(layer, u, u * 1e6)[0]
    assert u.norm() / start == pytest.approx(100.0, rel=1e-2)


@pytest.mark.parametrize(
    ("make_rule", "message"),
    [
        (lambda: make(alpha=-1.0), r"SpinRule.alpha must be a finite number >= 0, got -1"),
        (lambda: make(beta=1.5), r"SpinRule.beta must be in \[0, 1\], got 1.5"),
        (lambda: Gate(kappa=0.0), r"Gate.kappa must be a finite number > 0, got 0"),
        (lambda: Gate(kind="softclop"), r"smooth.gate.kind=softclop is not known; did you mean softclip\?"),
        (lambda: Gate(grad="both"), r"smooth.gate.grad=both is not known; allowed: detach, through"),
        (lambda: Gate(nonfinite="drop"), r"smooth.gate.nonfinite=drop is not known; allowed: propagate, zero_token"),
        (lambda: Strength(history="step"), r"smooth.strength.history=step is not known; allowed: depth, none"),
        (lambda: Gate(bound=None), r"smooth.gate.bound=null needs smooth.gate.depth"),
        (
            lambda: make(gate=Gate(kind="softclip", bound=0.33)),
            r"smooth.gate.bound=0.33 must be larger than smooth.tau=0.5.*set smooth.tau=0.165",
        ),
    ],
)
def test_wrong_values_name_the_way_out(make_rule, message):
    with pytest.raises(ConfigError, match=message):
        make_rule()
