"""Left-spin smoothing: its laws, and equality with the float64 reference."""

from __future__ import annotations

import math

import pytest
import torch

from aptlab.errors import AptlabError, ConfigError
from aptlab.nn.smooth import Carry, Gate, LeftSpin, LeftSpinSeed, MemorySmooth, Plain, SiteInfo, SpinRule, Strength
from aptlab.testing.smooth import join_once
from tests.reference import smooth as reference

DIM = 16
KINDS = ["normalized", "cosine", "softclip"]
LEARNED = Gate(learned=True)


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
def test_alpha_zero_or_none_is_the_plain_residual(layer):
    if isinstance(layer, LeftSpin | MemorySmooth):
        layer = type(layer)(DIM, layer=0, site="ffn", alpha=0.0)
    elif isinstance(layer, LeftSpinSeed):
        layer = LeftSpinSeed(DIM, layer=0, site="ffn", alpha=0.0)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        u, delta, _ = pair(6, 2.0, dtype=dtype)
        assert torch.equal(join_once(layer, u, delta, None)[0], u + delta)


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


def test_history_none_is_no_weight_on_turns_and_no_inertia():
    u, delta, carry = pair(14)
    none = make(strength=Strength(history="none"))
    same = make(beta=1.0, strength=Strength(w2=0.0))
    assert torch.equal(join_once(none, u, delta, carry)[0], join_once(same, u, delta, carry)[0])
    assert join_once(none, u, delta, carry)[1] is None


def test_the_automatic_bound_limits_the_growth_of_the_stream():
    layer = make(tau=0.1, gate=Gate(kind="softclip", bound=None, growth=100.0, depth=3))
    u = torch.full((1, 1, DIM), 1.0, dtype=torch.float64)
    start = u.norm()
    for _ in range(6):
        u = join_once(layer, u, u * 1e6)[0]
    assert u.norm() / start == pytest.approx(100.0, rel=1e-2)


def test_a_bound_without_a_number_goes_by_the_joins_of_the_model():
    layer = make(tau=None, gate=Gate(kind="softclip", bound=None, growth=50.0))
    u, delta, _ = pair(16)
    with pytest.raises(
        AptlabError, match=r"^LeftSpin goes by the depth of its model and knows none yet; call bind_site"
    ):
        join_once(layer, u, delta)
    layer.bind_site(SiteInfo(depth=4, sites=3))
    assert (1 + layer.rule.gate.limit) ** 12 == pytest.approx(50.0)
    assert layer.rule.knee == layer.rule.gate.limit / 2
    again = make(tau=None, gate=Gate(kind="softclip", bound=None, growth=50.0, depth=6))
    assert torch.equal(join_once(layer, u, delta)[0], join_once(again, u, delta)[0])


def test_learned_numbers_start_at_the_given_ones_and_get_gradients_though_the_gate_is_detached():
    numbers = {"alpha": 1.3, "tau": 0.4}
    fixed, learned = make(**numbers), make(**numbers, gate=LEARNED)
    u, delta, carry = pair(17)
    u.requires_grad_(), delta.requires_grad_()
    out, expected = join_once(learned, u, delta, carry)[0], join_once(fixed, u, delta, carry)[0]
    assert torch.allclose(out, expected, atol=1e-5)
    grads = [torch.autograd.grad(x.square().sum(), (u, delta), retain_graph=True) for x in (out, expected)]
    for mine, theirs in zip(*grads, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-3)
    out.square().sum().backward()
    for number in (learned.learned.a, learned.learned.t):
        assert number.shape == (1,)
        assert number.grad.abs() > 0
    torch.nn.init.constant_(learned.learned.a, 3.0)
    learned.reset_parameters(0.02, 2)
    alpha, tau = learned.learned()
    assert (alpha.item(), tau.item()) == (pytest.approx(1.3), pytest.approx(0.4))


def test_a_learned_angle_falls_where_its_gate_costs_loss():
    """The gate shrinks what the loss wants whole: alpha falls, tau rises."""
    torch.manual_seed(0)
    layer, (u, delta, _) = make(gate=LEARNED), pair(18, 2.0)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.5)
    for _ in range(20):
        optimizer.zero_grad()
        (join_once(layer, u, delta)[0] - u - delta).square().mean().backward()
        optimizer.step()
    alpha, tau = layer.learned()
    assert alpha < 1
    assert tau > 0.5


@pytest.mark.parametrize("decay", [0.5, 0.99])
def test_history_by_step_equals_the_reference(decay):
    layer = make(strength=Strength(history="step", decay=decay)).double().train()
    sizes, steps = [], 5
    for step in range(steps):
        u, delta, _ = pair(20 + step, 0.3 + step, dtype=torch.float64)
        usual = reference.usual_size(sizes, decay)
        out, carry, seen = join_once(layer, u, delta)
        applied = []
        for b in range(2):
            for t in range(5):
                numbers = {"alpha": 1.0, "tau": 0.5, "beta": 0.7, "kappa": 8.0, "w1": 1.0, "w2": 0.5, "reference": 0.02}
                expected, moved, *_ = reference.left_spin(
                    u[b, t].tolist(), delta[b, t].tolist(), None, **numbers, usual=usual
                )
                assert torch.allclose(out[b, t], torch.tensor(expected, dtype=torch.float64), rtol=1e-5, atol=1e-6)
                applied.append(reference.rms(moved))
        assert carry is None
        assert seen.keys() == {"step_sizes"}
        layer.history.update(seen["step_sizes"])
        sizes.append(sum(applied) / len(applied))
    assert layer.history.size.item() == pytest.approx(reference.usual_size(sizes, decay), rel=1e-5)
    assert layer.history.steps == steps


def test_a_history_by_step_forgets_nothing_by_an_inf_and_writes_nothing_in_evaluation():
    layer = make(strength=Strength(history="step"))
    u, delta, _ = pair(21)
    assert join_once(layer.eval(), u, delta)[2] is None
    clean = join_once(layer.train(), u, delta)[2]["step_sizes"]
    bad = delta.clone()
    bad[0, 1, 0], bad[1, 2, 3] = math.inf, math.nan
    seen = join_once(layer, u, bad)[2]["step_sizes"]
    assert seen.isfinite().all()
    assert [clean[1], seen[1]] == [10, 8]
    layer.history.update(clean)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    layer.history.update(join_once(layer, u, delta * math.inf)[2]["step_sizes"])
    layer.history.update(clean, skipped=True)
    layer.history.update(clean, skipped=torch.tensor([1.0]))
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())
    again = make(strength=Strength(history="step"))
    again.load_state_dict(before)
    assert torch.equal(join_once(again, u, delta)[0], join_once(layer, u, delta)[0])
    assert again.bfloat16().history.size.dtype == torch.float32


def test_a_step_larger_than_usual_is_shrunk_more_and_a_usual_one_is_not():
    fresh, taught = (make(strength=Strength(history="step")) for _ in range(2))
    u, delta, _ = pair(22, 0.5)
    taught.history.update(torch.tensor([0.1, 1.0]))
    gates = [layer.join(u, delta, None).gate for layer in (fresh, taught)]
    larger = (delta.square().mean(-1, keepdim=True).sqrt() > 0.15) & (gates[0] < 1)
    assert larger.any()
    assert (gates[1][larger] < gates[0][larger]).all()
    taught.history.update(torch.tensor([1e6, 1.0]))
    assert torch.equal(taught.join(u, delta, None).gate, gates[0])


@pytest.mark.parametrize(
    ("make_rule", "message"),
    [
        (lambda: make(alpha=-1.0), r"^alpha must be a finite number >= 0, got -1"),
        (lambda: make(beta=1.5), r"^beta must be in \[0, 1\], got 1.5"),
        (lambda: Gate(kappa=0.0), r"^kappa must be a finite number > 0, got 0"),
        (lambda: Gate(kind="softclop"), r"^kind=softclop is not known; did you mean softclip\?"),
        (lambda: Gate(grad="both"), r"^grad=both is not known; allowed: detach, through"),
        (lambda: Gate(nonfinite="drop"), r"^nonfinite=drop is not known; allowed: propagate, zero_token"),
        (lambda: Strength(history="token"), r"^history=token is not known; allowed: depth, none, step"),
        (lambda: make(tau=None), r"^tau=null is half of softclip's bound, and gate.kind=normalized has none; set tau"),
        (
            lambda: make(alpha=0.0, gate=LEARNED),
            r"^gate.learned=true starts from alpha=0, tau=0.5, and needs alpha",
        ),
        (lambda: make(tau=1.0, gate=LEARNED), r"^gate.learned=true starts from alpha=1, tau=1, and .* tau in \(0, 1\)"),
        (
            lambda: make(gate=Gate(kind="softclip", learned=True)),
            r"^gate.learned=true and gate.kind=softclip: softclip has no angle; use kind=normalized",
        ),
        (
            lambda: make(gate=Gate(kind="softclip", bound=None)).bind_site(SiteInfo(depth=12)),
            r"^gate.bound=0.3335 must be larger than tau=0.5.*set tau=0.167",
        ),
        (
            lambda: make(gate=Gate(kind="softclip", bound=0.33)),
            r"^gate.bound=0.33 must be larger than tau=0.5.*set tau=0.165",
        ),
    ],
)
def test_wrong_values_name_the_way_out(make_rule, message):
    with pytest.raises(ConfigError, match=message):
        make_rule()
