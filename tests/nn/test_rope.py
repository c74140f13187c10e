"""Rotary rules: vectors of frequencies against the papers and transformers, identities, limits, messages."""

import inspect
import math
import subprocess
import sys

import numpy as np
import pytest

import aptlab.nn.positions.rope
from aptlab.errors import ConfigError
from aptlab.nn.positions.rope import NTK, Linear, Llama3, NoRope, Rope, Standard, YaRN
from aptlab.testing import RopeContract
from tests.helpers import assert_agree
from tests.reference import rope as reference

BASES = (10_000.0, 500_000.0)
DIMS = (4, 32, 64, 128)


def config(option, **values):
    return {"_target_": f"aptlab.nn.positions.rope.{option}", **values}


class TestStandard(RopeContract):
    rule = Standard(base=10_000.0)
    config = config("Standard", base=10_000.0)


class TestLinear(RopeContract):
    rule = Linear(factor=4.0)
    config = config("Linear", factor=4.0)


class TestNTK(RopeContract):
    rule = NTK(factor=8.0)
    config = config("NTK", factor=8.0)


class TestYaRN(RopeContract):
    rule = YaRN(factor=8.0, original_len=256)
    config = config("YaRN", factor=8.0, original_len=256)


class TestYaRNWithoutTruncation(RopeContract):
    rule = YaRN(base=150_000.0, factor=32.0, original_len=4096, truncate=False)


class TestYaRNByRatio(RopeContract):
    rule = YaRN(factor=4.0, original_len=4096, ramp="ratio")


class TestLlama3(RopeContract):
    rule = Llama3()
    config = config("Llama3")


@pytest.mark.parametrize("head_dim", DIMS)
@pytest.mark.parametrize("base", BASES)
def test_frequencies_are_the_papers(base, head_dim):
    assert_agree(Standard(base=base).inv_freq(head_dim), reference.standard(base, head_dim))
    assert_agree(Linear(base=base, factor=3.0).inv_freq(head_dim), reference.linear(base, 3.0, head_dim))
    assert_agree(NTK(base=base, factor=8.0).inv_freq(head_dim), reference.ntk(base, 8.0, head_dim))
    for length in (256, 4096, 32_768):
        given = {"base": base, "factor": 16.0, "original_len": length}
        by_index = reference.yarn(base, 16.0, length, 1.0, 32.0, head_dim)
        assert_agree(YaRN(**given).inv_freq(head_dim), by_index)
        open_ends = reference.yarn(base, 16.0, length, 1.0, 32.0, head_dim, truncate=False)
        assert_agree(YaRN(**given, truncate=False).inv_freq(head_dim), open_ends)
        by_ratio = reference.by_parts(base, 16.0, length, 1.0, 32.0, head_dim)
        assert_agree(YaRN(**given, ramp="ratio").inv_freq(head_dim), by_ratio)
        llama3 = reference.llama3(base, 16.0, 1.0, 4.0, length, head_dim)
        assert_agree(Llama3(**given).inv_freq(head_dim), llama3)


HF = [
    (Standard(base=500_000.0), {"rope_type": "default"}),
    (Linear(factor=4.0), {"rope_type": "linear", "factor": 4.0}),
    (YaRN(factor=16.0), {"rope_type": "yarn", "factor": 16.0, "original_max_position_embeddings": 4096}),
    (
        YaRN(base=150_000.0, factor=32.0, truncate=False),
        {"rope_type": "yarn", "factor": 32.0, "original_max_position_embeddings": 4096, "truncate": False},
    ),
    (
        YaRN(factor=8.0, beta_fast=128.0, beta_slow=2.0, original_len=8192),
        {
            "rope_type": "yarn",
            "factor": 8.0,
            "beta_fast": 128.0,
            "beta_slow": 2.0,
            "original_max_position_embeddings": 8192,
        },
    ),
    (
        Llama3(),
        {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
    ),
]


@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize(("rule", "parameters"), HF, ids=repr)
def test_frequencies_and_temperature_are_those_of_transformers(rule, parameters, head_dim):
    pytest.importorskip("transformers")
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    given = LlamaConfig(
        hidden_size=4 * head_dim,
        num_attention_heads=4,
        max_position_embeddings=1_000_000,
        rope_parameters={"rope_theta": rule.base, **parameters},
    )
    oracle = LlamaRotaryEmbedding(given)
    assert_agree(rule.inv_freq(head_dim), oracle.inv_freq.double().numpy(), rel=1e-6)
    assert rule.temperature == pytest.approx(oracle.attention_scaling**2, rel=1e-12)


@pytest.mark.parametrize("ramp", ["index", "ratio"])
def test_ntk_by_parts_with_llama3_bounds_is_llama3(ramp):
    llama3 = Llama3(base=500_000.0, factor=8.0, low=1.0, high=4.0, original_len=8192)
    parts = YaRN(base=500_000.0, factor=8.0, beta_fast=4.0, beta_slow=1.0, original_len=8192, ramp=ramp)
    if ramp == "ratio":
        assert_agree(parts.inv_freq(128), llama3.inv_freq(128), rel=1e-14)
    else:
        assert not np.allclose(parts.inv_freq(128), llama3.inv_freq(128), rtol=1e-2)
    assert llama3.temperature == 1.0


def test_ntk_keeps_the_fastest_pair_and_divides_the_slowest_by_the_factor():
    for head_dim in DIMS:
        kept, standard = NTK(factor=8.0).inv_freq(head_dim), Standard().inv_freq(head_dim)
        assert kept[0] == standard[0] == 1.0
        assert kept[-1] == pytest.approx(standard[-1] / 8.0, rel=1e-13)


def test_linear_divides_every_pair():
    assert_agree(Linear(factor=4.0).inv_freq(128), np.array(Standard().inv_freq(128)) / 4.0, rel=0)


MODELS = [
    ("Llama 2", 10_000.0, 4096, 128, (20, 46)),
    ("Llama 3", 500_000.0, 8192, 128, (18, 35)),
    ("Qwen 2.5", 1_000_000.0, 32_768, 128, (23, 40)),
    ("gpt-oss, rounded", 150_000.0, 4096, 64, (8, 18)),
    ("DeepSeek-V3", 10_000.0, 4096, 64, (10, 23)),
]


@pytest.mark.parametrize(("base", "length", "head_dim", "ends"), [m[1:] for m in MODELS], ids=[m[0] for m in MODELS])
def test_yarn_ramps_between_the_pairs_of_published_models(base, length, head_dim, ends):
    rule = YaRN(base=base, factor=16.0, original_len=length)
    divisors = np.array(Standard(base=base).inv_freq(head_dim)) / np.array(rule.inv_freq(head_dim))
    kept = np.flatnonzero(divisors < 1 + 1e-12)
    divided = np.flatnonzero(divisors > 16 - 1e-9)
    assert (kept[-1], divided[0]) == ends


def test_yarns_two_ramps_differ_as_measured_for_llama_2():
    standard = Standard().inv_freq(128)
    by_index, by_ratio = (YaRN(factor=16.0, ramp=ramp).inv_freq(128) for ramp in ("index", "ratio"))
    assert standard[30] / by_index[30] == pytest.approx(1.56, abs=0.005)
    assert standard[30] / by_ratio[30] == pytest.approx(3.39, abs=0.005)
    weights = [[(f / s * 16 - 1) / 15 for f, s in zip(freq, standard)] for freq in (by_index, by_ratio)]
    assert max(abs(a - b) for a, b in zip(*weights)) == pytest.approx(0.37, abs=0.005)


def test_temperatures():
    assert YaRN(factor=4.0).temperature == pytest.approx(1.138629436**2, rel=1e-9)
    assert YaRN(factor=32.0).temperature == pytest.approx(reference.yarn_logit_factor(32.0), rel=1e-14)
    for rule in (Standard(), Linear(), NTK(), Llama3(), NoRope()):
        assert rule.temperature == 1.0


@pytest.mark.parametrize("length", [1, 5, 7, 40])
def test_yarn_of_very_short_contexts_stays_between_kept_and_divided(length):
    freq, standard = np.array(YaRN(factor=4.0, original_len=length).inv_freq(64)), np.array(Standard().inv_freq(64))
    assert np.all((freq <= standard * (1 + 1e-12)) & (freq >= standard / 4 * (1 - 1e-12)))


def test_no_rope_has_no_rule_in_any_layer():
    assert [NoRope().for_layer(layer).rule for layer in range(3)] == [None, None, None]
    with pytest.raises(ConfigError, match=r"^this rule has no frequencies; choose a rope option such as rope=standard"):
        NoRope().inv_freq(64)


def test_other_rules_are_the_same_in_every_layer():
    rule = YaRN()
    assert rule.for_layer(0).rule is rule
    assert rule.for_layer(11).rule is rule


def test_reference_logits_are_relative_in_float64():
    rng = np.random.default_rng(0)
    q, k, places = rng.normal(size=(6, 16)), rng.normal(size=(6, 16)), np.arange(6)
    for rule in (Standard(), Linear(), NTK(), YaRN(original_len=64), Llama3(original_len=64)):
        theta = rule.inv_freq(16)
        here = reference.logits(q, k, places, places, theta)
        there = reference.logits(q, k, places + 1024, places + 1024, theta)
        assert np.abs(here - there).max() < 1e-12


BAD = [
    (lambda: Standard(base=0.0), r"^base must be a finite number > 0, got 0"),
    (lambda: Standard(base=1.0).inv_freq(64), r"^base=1\.0 must be larger than 1"),
    (lambda: YaRN(base=1.0).inv_freq(64), r"^base=1\.0 must be larger than 1"),
    (lambda: Standard().inv_freq(63), r"^head_dim=63 is not a positive even number"),
    (lambda: Standard().inv_freq(0), r"^head_dim=0 is not a positive even number"),
    (lambda: NTK().inv_freq(2), r"^head_dim=2 is below 4, and the exponent is D/\(D-2\); use a wider head"),
    (lambda: Linear(factor=0.5), r"^factor must be a finite number >= 1, got 0\.5"),
    (lambda: YaRN(factor=float("nan")), r"^factor must be"),
    (lambda: YaRN(factor=float("inf")), r"^factor must be"),
    (lambda: YaRN(original_len=0), r"^original_len must be"),
    (lambda: YaRN(beta_fast=1.0, beta_slow=1.0), r"^beta_fast=1\.0 must be larger than beta_slow=1\.0"),
    (lambda: YaRN(ramp="cosine"), r"^ramp='cosine'; allowed: index \(released code\), ratio \(paper\)"),
    (lambda: Llama3(low=5.0, high=4.0), r"^high=4\.0 must not be smaller than low=5\.0; published: 4, 1"),
]


@pytest.mark.parametrize(("make", "message"), BAD, ids=[message for _, message in BAD])
def test_values_without_meaning_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


SHIPPED = [
    rule for rule in vars(aptlab.nn.positions.rope).values() if isinstance(rule, type) and issubclass(rule, Rope)
]
SHIPPED = [rule for rule in SHIPPED if not inspect.isabstract(rule) and rule.__name__ != "Rotation"]
SOURCES = (
    "arXiv",
    "seeds",
    "Llama 4",
    "emozilla",
    "Qwen2-VL",
    "Ministral 3",
)  # papers, and what was released without one


def test_thirty_two_rules_and_none_are_shipped():
    assert len(SHIPPED) == 33


@pytest.mark.parametrize("rule", SHIPPED, ids=lambda rule: rule.__name__)
def test_every_shipped_rule_says_what_it_is_and_where_it_is_from(rule):
    docstring = inspect.getdoc(rule) or ""
    assert len(docstring.splitlines()[0]) > 20
    assert any(word in docstring for word in SOURCES), f"{rule.__name__} has no source"
    assert rule.__dataclass_params__.frozen


def test_no_shipped_rule_is_made_from_another():
    assert [
        (rule, other) for rule in SHIPPED for other in SHIPPED if rule is not other and issubclass(rule, other)
    ] == []


def test_rules_import_no_torch():
    code = "import aptlab.nn.positions.rope, aptlab.nn.shape, sys\n"
    code += "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_frequencies_are_exact_to_the_last_bits():
    assert Standard().inv_freq(128)[32] == pytest.approx(0.01, rel=1e-15)
    assert math.isclose(Standard(base=500_000.0).inv_freq(128)[-1], 500_000.0 ** (-126 / 128), rel_tol=1e-15)
