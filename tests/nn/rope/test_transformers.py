"""Frequencies and temperatures are those of transformers, for every rule that both have."""

import itertools
import math

import numpy as np
import pytest
import torch

from aptlab.nn.positions.rope import (
    Dynamic,
    Linear,
    Llama3,
    LongRoPE,
    MRope,
    MRopeInterleaved,
    Proportional,
    Standard,
    YaRN,
)
from aptlab.nn.positions.rotary import build_rotary

pytest.importorskip("transformers")

BASES = (10_000.0, 150_000.0, 500_000.0)
DIMS = (32, 64, 128)
FACTORS = (2.0, 8.0, 32.0)
LENGTHS = (2048, 8192)
CASES = list(itertools.product(BASES, DIMS, FACTORS, LENGTHS))
CLOSE = 1e-6  # transformers computes in float32
WEIGHT = 2**-24  # rounding of a ramp weight near 0 there, of theta: the factor times this, of theta / factor


def theirs(kind, base, head_dim, *, length=2048, seq_len=None, **parameters):
    """inv_freq and attention factor of ROPE_INIT_FUNCTIONS."""
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    config = LlamaConfig(
        hidden_size=2 * head_dim,
        num_attention_heads=2,
        head_dim=head_dim,
        max_position_embeddings=length,
        rope_parameters={"rope_type": kind, "rope_theta": base, **parameters},
    )
    freq, factor = ROPE_INIT_FUNCTIONS[kind](config, torch.device("cpu"), seq_len=seq_len)
    return freq.double().numpy(), float(factor)


def assert_agree(freq, temperature, oracle, rel=CLOSE):
    expected, factor = oracle
    assert len(freq) == len(expected)
    np.testing.assert_allclose(np.array(freq), expected, rtol=rel, atol=0)
    assert temperature == pytest.approx(factor**2, rel=1e-12)


def test_default():
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    for base, head_dim in itertools.product(BASES, DIMS):
        parameters = {"rope_type": "default", "rope_theta": base}
        config = LlamaConfig(hidden_size=2 * head_dim, num_attention_heads=2, rope_parameters=parameters)
        embedding = LlamaRotaryEmbedding(config)
        oracle = embedding.inv_freq.double().numpy(), embedding.attention_scaling
        assert_agree(Standard(base=base).inv_freq(head_dim), 1.0, oracle)


def test_linear():
    for base, head_dim, factor in itertools.product(BASES, DIMS, FACTORS):
        rule = Linear(base=base, factor=factor)
        assert_agree(rule.inv_freq(head_dim), rule.temperature, theirs("linear", base, head_dim, factor=factor))


def test_dynamic_at_lengths_below_at_and_above_the_trained_one():
    for (base, head_dim, factor, length), times in itertools.product(CASES, (0.5, 1, 1.5, 4, 32)):
        rule, seq_len = Dynamic(base=base, factor=factor, original_len=length), int(times * length)
        scaled = rule.bases(torch.tensor([float(seq_len)], dtype=torch.float64), head_dim).item()
        oracle = theirs("dynamic", base, head_dim, length=length, seq_len=seq_len, factor=factor)
        assert_agree(Standard(base=scaled).inv_freq(head_dim), rule.temperature, oracle)


@pytest.mark.parametrize("truncate", [True, False])
@pytest.mark.parametrize(("fast", "slow"), [(32.0, 1.0), (128.0, 2.0)])
def test_yarn(fast, slow, truncate):
    for base, head_dim, factor, length in CASES:
        given = {"beta_fast": fast, "beta_slow": slow, "truncate": truncate, "factor": factor}
        rule = YaRN(base=base, original_len=length, **given)
        oracle = theirs("yarn", base, head_dim, original_max_position_embeddings=length, **given)
        rel = CLOSE if truncate else CLOSE + factor * WEIGHT  # our own are within 1e-15 of float64, see test_rope.py
        assert_agree(rule.inv_freq(head_dim), rule.temperature, oracle, rel)


def test_yarn_with_a_given_attention_factor():
    oracle = theirs("yarn", 1e4, 64, original_max_position_embeddings=2048, factor=8.0, attention_factor=1.3)
    rule = YaRN(factor=8.0, original_len=2048, attention_factor=1.3)
    assert_agree(rule.inv_freq(64), rule.temperature, oracle)


@pytest.mark.parametrize(("low", "high"), [(1.0, 4.0), (1.0, 32.0), (2.0, 8.0)])
def test_llama3(low, high):
    for base, head_dim, factor, length in CASES:
        rule = Llama3(base=base, factor=factor, low=low, high=high, original_len=length)
        given = {"factor": factor, "low_freq_factor": low, "high_freq_factor": high}
        oracle = theirs("llama3", base, head_dim, original_max_position_embeddings=length, **given)
        assert_agree(rule.inv_freq(head_dim), rule.temperature, oracle)


def test_longrope_below_and_above_the_trained_length():
    for base, head_dim, factor, length in CASES:
        short = [1.0 + 0.01 * i for i in range(head_dim // 2)]
        long = [1.0 + factor * i / head_dim for i in range(head_dim // 2)]
        rule = LongRoPE(base=base, factor=factor, original_len=length, short=tuple(short), long=tuple(long))
        given = {"factor": factor, "short_factor": short, "long_factor": long}
        for seq_len in (length, length + 1):
            regime = rule.regime(None, torch.tensor([seq_len])).item()
            oracle = theirs(
                "longrope", base, head_dim, seq_len=seq_len, original_max_position_embeddings=length, **given
            )
            assert_agree(rule.regimes(head_dim)[regime], rule.temperatures()[regime], oracle)


@pytest.mark.parametrize(("fraction", "head_dim"), [(0.75, 128), (0.5, 64), (0.25, 32)])
def test_longrope_of_a_part_of_each_head(fraction, head_dim):
    """0.75 of 128 as Phi-4-mini."""
    pairs = int(fraction * head_dim) // 2
    short, long = [1.0 + 0.01 * i for i in range(pairs)], [1.0 + 0.4 * i for i in range(pairs)]
    rule = LongRoPE(factor=32.0, original_len=4096, short=tuple(short), long=tuple(long), fraction=fraction)
    given = {"factor": 32.0, "short_factor": short, "long_factor": long, "partial_rotary_factor": fraction}
    for regime, seq_len in enumerate((4096, 4097)):
        oracle = theirs("longrope", 10_000.0, head_dim, seq_len=seq_len, original_max_position_embeddings=4096, **given)
        assert_agree(rule.regimes(head_dim)[regime], rule.temperatures()[regime], oracle)


def test_proportional_with_its_factor():
    for base, head_dim, factor, fraction in itertools.product(BASES, DIMS, (1.0, *FACTORS), (0.25, 0.3, 0.5, 1.0)):
        rule = Proportional(base=base, fraction=fraction, factor=factor)
        oracle = theirs("proportional", base, head_dim, factor=factor, partial_rotary_factor=fraction)
        assert_agree(rule.inv_freq(head_dim), rule.temperature, oracle)


PLACES = [[0, 1, 2, 3, 40], [0, 0, 5, 9, 41], [0, 7, 1, 30, 42]]  # three streams of five tokens


@pytest.mark.parametrize("sections", [(16, 24, 24), (24, 20, 20)])
def test_mrope_is_qwen2_vls(sections):
    from transformers.models.qwen2_vl.configuration_qwen2_vl import Qwen2VLTextConfig
    from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VLRotaryEmbedding

    assert_same_as_theirs(MRope(base=1e6, sections=sections), Qwen2VLTextConfig, Qwen2VLRotaryEmbedding)


@pytest.mark.parametrize("sections", [(24, 20, 20), (22, 21, 21)])
def test_interleaved_mrope_is_qwen3_vls(sections):
    from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLTextConfig
    from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLTextRotaryEmbedding

    assert_same_as_theirs(MRopeInterleaved(base=1e6, sections=sections), Qwen3VLTextConfig, Qwen3VLTextRotaryEmbedding)


def assert_same_as_theirs(rule, config, embedding):
    parameters = {"rope_type": "default", "rope_theta": rule.base, "mrope_section": list(rule.sections)}
    given = config(hidden_size=256, num_attention_heads=2, head_dim=128, rope_parameters=parameters)
    cos, sin = embedding(given)(torch.zeros(1, 5, 256), torch.tensor(PLACES)[:, None])
    ours = build_rotary(rule, head_dim=128).angles(torch.tensor(PLACES).T[None])
    assert cos.shape[-1] == 128
    np.testing.assert_allclose(ours.cos[0, 0], cos.reshape(-1, 5, 128)[0, :, :64], atol=2e-5)
    np.testing.assert_allclose(ours.sin[0, 0], sin.reshape(-1, 5, 128)[0, :, :64], atol=2e-5)


def test_published_longrope_lists_give_phi_3s_temperature():
    assert math.sqrt(LongRoPE(factor=32.0, original_len=4096).temperature) == pytest.approx(1.1902, abs=5e-5)
