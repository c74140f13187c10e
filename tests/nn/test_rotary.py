"""Rotation: exact at any position, relative, and safe from casts."""

import copy
import math

import numpy as np
import pytest
import torch

from aptlab.nn.positions.rope import NTK, Linear, Llama3, Standard, YaRN
from aptlab.nn.positions.rotary import LONGEST, STEP, RotaryEmbedding
from aptlab.testing import make_tiny_decoder
from tests.reference import rope as reference

RULES = [Standard(), Standard(base=500_000.0), Linear(), NTK(), YaRN(original_len=4096), Llama3()]
FAR = [0, 1, 4095, 4096, 4097, 131_072, 1_000_000, 9_999_999, 10_000_000, LONGEST - 1]
named = pytest.mark.parametrize("rule", RULES, ids=repr)


def at(rotary, *positions):
    return rotary.angles(torch.tensor([positions]))


@named
def test_angles_are_exact_to_float32_at_every_position(rule):
    rotary = RotaryEmbedding(rule, head_dim=128)
    cos, sin, _ = at(rotary, *FAR)
    exact = np.outer(np.array(FAR, dtype=np.float64), np.array(rule.inv_freq(128)))
    assert cos.dtype == sin.dtype == torch.float32
    assert np.abs(cos[0, 0].double().numpy() - np.cos(exact)).max() < 2.5e-7
    assert np.abs(sin[0, 0].double().numpy() - np.sin(exact)).max() < 2.5e-7


@pytest.mark.parametrize("rule", [Standard(), YaRN(base=500_000.0), Llama3()], ids=repr)
@pytest.mark.parametrize("shift", [0, 131_072, 10_000_000 - 8, LONGEST - 8])
def test_logits_at_ten_million_differ_from_float64_by_less_than_a_millionth(rule, shift):
    """Logits of unit-variance vectors, q·k / sqrt(D), computed from the tables in float64 arithmetic."""
    rng = np.random.default_rng(0)
    q, k = rng.normal(size=(8, 128)), rng.normal(size=(8, 128))
    places = np.arange(8) + shift
    expected = reference.logits(q, k, np.arange(8), np.arange(8), rule.inv_freq(128))
    rotary = RotaryEmbedding(rule, head_dim=128)
    angles = rotary.angles(torch.from_numpy(places).unsqueeze(0))
    rotated = [rotary.rotate(torch.from_numpy(x)[None, None], angles)[0, 0] for x in (q, k)]
    got = (rotated[0] @ rotated[1].T / math.sqrt(128)).numpy()
    assert np.abs(got - expected).max() <= 1e-6


@pytest.mark.parametrize("step", [1, STEP])
def test_tables_are_the_cosines_and_sines_of_float64_in_float32(step):
    rotary = RotaryEmbedding(Standard(), head_dim=128)
    exact = np.outer(step * np.arange(STEP, dtype=np.float64), np.array(Standard().inv_freq(128)))
    cos, sin = rotary.tables[:2] if step == STEP else rotary.tables[2:]
    for table, expected in ((cos, np.cos(exact)), (sin, np.sin(exact))):
        assert np.abs(table.double().numpy() - expected).max() < 2**-25 + 4e-9  # half a step of float32, and 1.6e7 rad


def test_tables_are_not_made_again_when_a_module_moves(monkeypatch):
    rotary = RotaryEmbedding(Standard(), head_dim=64)
    monkeypatch.setattr(RotaryEmbedding, "_tables", lambda self: pytest.fail("made again"))
    before = rotary.tables
    assert rotary.to("cpu", torch.bfloat16).tables is before


def test_a_float32_product_of_position_and_frequency_would_be_off_by_a_third():
    """What the two tables are for: the plain float32 angle at ten million."""
    theta = torch.tensor(Standard().inv_freq(128))
    exact = 10_000_000 * theta.double()
    plain = (torch.tensor(10_000_000.0) * theta.float()).double()
    assert (plain - exact).abs().max() > 0.3


@named
def test_rotation_is_the_papers(rule):
    rotary, rng = RotaryEmbedding(rule, head_dim=32), np.random.default_rng(1)
    x, positions = rng.normal(size=(5, 32)), [0, 3, 700, 4096, 12_345]
    expected = np.stack([reference.rotate(row, m, rule.inv_freq(32)) for row, m in zip(x, positions)])
    got = rotary.rotate(torch.from_numpy(x)[None, None], at(rotary, *positions))[0, 0]
    assert np.abs(got.numpy() - expected).max() < 1e-6


@named
@pytest.mark.parametrize("head_dim", [4, 64, 128])
def test_norms_are_kept_and_float32_logits_shift_invariant(rule, head_dim):
    rotary = RotaryEmbedding(rule, head_dim=head_dim)
    q, k = torch.randn(2, 1, 1, 16, head_dim, generator=torch.Generator().manual_seed(2)).unbind()
    places = torch.arange(16).unsqueeze(0)

    def logits(shift):
        angles = rotary.angles(places + shift)
        rotated = [rotary.rotate(x, angles) for x in (q, k)]
        assert (rotated[0].norm(dim=-1) / q.norm(dim=-1) - 1).abs().max() < 1e-6
        return rotated[0].double() @ rotated[1].double().transpose(-1, -2) / math.sqrt(head_dim)

    assert max((logits(s) - logits(0)).abs().max().item() for s in (1, 5000, 131_072, 10_000_000)) < 2e-6


def test_positions_of_each_row_are_its_own():
    rotary = RotaryEmbedding(Standard(), head_dim=16)
    positions = torch.tensor([[0, 1, 2], [7, 0, 5000]])
    both = rotary.angles(positions)
    for row in range(2):
        alone = rotary.angles(positions[row : row + 1])
        assert torch.equal(both.cos[row], alone.cos[0])
        assert torch.equal(both.sin[row], alone.sin[0])


def test_position_zero_changes_nothing():
    rotary, x = RotaryEmbedding(Standard(), head_dim=16), torch.randn(1, 2, 1, 16)
    assert torch.equal(rotary.rotate(x, at(rotary, 0)), x)


def test_rotation_returns_the_input_dtype_and_rounds_once():
    rotary = RotaryEmbedding(Standard(), head_dim=64)
    x = torch.randn(1, 1, 4, 64, generator=torch.Generator().manual_seed(3))
    angles = at(rotary, 0, 300, 70_000, 1_000_000)
    for dtype in (torch.bfloat16, torch.float16):
        got = rotary.rotate(x.to(dtype), angles)
        assert got.dtype == dtype
        assert torch.equal(got, rotary.rotate(x.to(dtype).float(), angles).to(dtype))


CASTS = {
    "bfloat16()": lambda net: net.bfloat16(),
    "half()": lambda net: net.half(),
    "double()": lambda net: net.double(),
    "to(bfloat16)": lambda net: net.to(torch.bfloat16),
    "to(cpu, bfloat16)": lambda net: net.to("cpu", torch.bfloat16),
    "there and back": lambda net: net.half().float(),
    "deepcopy": lambda net: copy.deepcopy(net.bfloat16()),
    "through meta": lambda net: net.to("meta").to_empty(device="cpu"),
}


@pytest.mark.parametrize("cast", CASTS.values(), ids=CASTS)
def test_tables_stay_float32_and_exact_whatever_is_cast(cast):
    net = make_tiny_decoder()
    before = {name: table.clone() for name, table in net.rotaries.named_buffers()}
    after = dict(cast(net).rotaries.named_buffers())
    assert set(after) == set(before)
    for name, table in after.items():
        assert table.dtype == torch.float32
        assert torch.equal(table, before[name])
    for rotary in net.rotaries:
        assert rotary.theta.dtype == torch.float64
        assert rotary.theta.tolist() == list(rotary.rule.inv_freq(rotary.head_dim))


def test_a_model_built_on_meta_has_right_tables_once_it_is_real():
    real = make_tiny_decoder()
    with torch.device("meta"):
        net = make_tiny_decoder()
    net = net.to_empty(device="cpu")
    net.load_state_dict(real.state_dict())
    tokens = torch.arange(12).unsqueeze(0)
    assert torch.equal(net.eval()(tokens).logits, real(tokens).logits)


def test_tables_are_not_in_the_state_dict():
    assert not [name for name in make_tiny_decoder().state_dict() if "rotar" in name]


def test_tables_of_a_128_wide_head_take_less_than_8_mb():
    rotary = RotaryEmbedding(Standard(), head_dim=128)
    size = sum(table.numel() * table.element_size() for table in rotary.buffers())
    assert size == 4 * STEP * 64 * 4
    assert size <= 8 * 2**20


def test_two_rules_have_two_tables():
    """Guards against caches keyed by part of the parameters."""
    one, two = (RotaryEmbedding(Standard(base=base), head_dim=16) for base in (10_000.0, 500_000.0))
    assert not torch.equal(one.lo_cos, two.lo_cos)
