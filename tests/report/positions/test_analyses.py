"""Numbers of every analysis against loops in tests/reference/analyses.py and against published values."""

import math

import numpy as np
import pytest

from aptlab.errors import ConfigError
from aptlab.nn.positions.rope import (
    NTK,
    Axial2D,
    Dynamic,
    IRopeHeads,
    IRopePhase,
    Learnable,
    Linear,
    Llama3,
    LongRoPE,
    Partial,
    Proportional,
    Standard,
    XPos,
    XPosAngleDecay,
    YaRN,
    compute_critical_pair,
)
from aptlab.report.positions import (
    ANALYSES,
    AnalysisSettings,
    bases,
    decay,
    extrapolation,
    logits,
    memory,
    precision,
    similarity,
    split_rotary_parts,
    wavelengths,
)
from aptlab.report.positions.facts import format_facts, summarize_rules
from aptlab.report.positions.lines import Curve, format_curves_csv, make_distance_bins, summarize_bins
from tests.reference import analyses as reference
from tests.report.positions.making import SMALL, one

THETA = reference.frequencies(10_000, 16)


def test_wavelengths_and_divisors():
    (line,) = wavelengths.compute_tables([one(Linear(original_len=128, factor=8.0))], SMALL)[""]
    assert line["wavelength"] == pytest.approx([8 * 2 * math.pi / f for f in THETA])
    assert line["divisor"] == pytest.approx([8.0] * 8)
    assert line["turns_length"] == pytest.approx([f * 128 / (2 * math.pi) for f in THETA])


def test_a_pair_that_stands_still_has_an_infinite_wavelength_and_is_never_critical():
    part = one(Proportional(fraction=0.25))
    (line,) = wavelengths.compute_tables([part], SMALL)[""]
    assert np.isinf(line["wavelength"][2:]).all()
    assert wavelengths.find_critical_pair(part, 128) is None


@pytest.mark.parametrize(("base", "original", "dims"), [(10_000, 4096, 128), (500_000, 8192, 128), (10_000, 2048, 96)])
def test_the_critical_pair_is_that_of_liu_et_al(base, original, dims):
    setting = AnalysisSettings(length=4 * original, original=original, head_dim=dims)
    found = wavelengths.find_critical_pair(one(Standard(base=base), setting), original)
    assert found == compute_critical_pair(base, original, dims)
    assert found == {(10_000, 4096, 128): 46, (500_000, 8192, 128): 35, (10_000, 2048, 96): 31}[base, original, dims]


@pytest.mark.parametrize("distance", [0, 1, 7, 100, 1000])
def test_the_expected_logit_is_the_trace_of_the_rotation(distance):
    for rule, theta in (
        (Standard(), THETA),
        (Linear(original_len=128, factor=4.0), [f / 4 for f in THETA]),
        (Partial(fraction=0.5), reference.frequencies(10_000, 8)),
    ):
        found = logits.average_by_distance(one(rule), np.array([distance]), 1024)[0]
        assert found == pytest.approx(reference.mean_logit(theta, distance, 0, 16), abs=1e-12)


def test_the_expected_logit_of_irope_phase_is_that_of_two_bases():
    m, n = 6, 1
    rotated = reference.rotation(reference.frequencies(30_000, 16), m, 16).T
    expected = np.trace(rotated @ reference.rotation(reference.frequencies(20_000, 16), n, 16)) / 16
    assert logits.compute_similarity(one(IRopePhase()), np.array([m]), np.array([n]), 1024)[0] == pytest.approx(
        expected
    )


def test_temperature_and_decay_are_in_the_logit():
    yarn = YaRN(original_len=128, factor=8.0)
    assert logits.average_by_distance(one(yarn), np.array([0]), 1024)[0] == pytest.approx((0.1 * math.log(8) + 1) ** 2)
    zeta = [((2 * i / 16 + 0.4) / 1.4) ** (100 / 512) for i in range(8)]
    expected = sum(z * math.cos(100 * f) for z, f in zip(zeta, THETA)) / 8
    assert logits.average_by_distance(one(XPos()), np.array([100]), 1024)[0] == pytest.approx(expected)


def test_random_vectors_spread_around_the_expected_logit():
    part, distances = one(Standard()), np.array([0, 3, 50])
    values = logits.compute_random_logits(part, logits.sample_pair_shares(part, 20_000, 0), distances, 1024)
    assert values[:, 0] == pytest.approx(np.ones(20_000))
    assert values.mean(0) == pytest.approx(logits.average_by_distance(part, distances, 1024), abs=0.01)


def test_the_same_seed_draws_the_same_vectors():
    part = one(Standard())
    assert (logits.sample_pair_shares(part, 5, 3) == logits.sample_pair_shares(part, 5, 3)).all()
    assert (logits.sample_pair_shares(part, 5, 3) != logits.sample_pair_shares(part, 5, 4)).any()


def test_only_rules_that_are_not_relative_change_under_a_shift():
    for rule in (Standard(), XPos(), YaRN(original_len=128), IRopePhase(), XPosAngleDecay()):
        found = similarity.compute_shift_error(one(rule), SMALL)["max"].max()
        assert (found < 1e-10) == rule.relative, f"{rule}: {found}"


def test_the_matrix_is_causal_and_depends_on_distance_for_a_relative_rule():
    cells = similarity.compute_logit_matrix(one(Standard()), SMALL)
    assert (cells["m"] >= cells["n"]).all()
    for distance in (0, 1, 17):
        values = cells["logit"][cells["m"] - cells["n"] == distance]
        assert values == pytest.approx(np.full(len(values), values[0]))


@pytest.mark.parametrize("distance", [0, 1, 13, 500])
def test_the_bound_is_roformers_mean(distance):
    found = decay.compute_abel_bound(one(Standard()), np.array([distance]), 1024)[0]
    assert found == pytest.approx(reference.abel_mean(THETA, distance), rel=1e-12)


def test_the_bound_holds_for_random_logits():
    random = np.random.default_rng(0)
    for distance in (1, 10, 200):
        h = list(random.standard_normal(8) + 1j * random.standard_normal(8))
        logit, bound = reference.abel_sum_bound(THETA, h, distance)
        ours = decay.compute_abel_bound(one(Standard()), np.array([distance]), 1024)[0]
        steps = max(abs(b - a) for a, b in zip(h, [*h[1:], 0j]))
        assert bound == pytest.approx(steps * 8 * ours)
        assert logit <= bound


@pytest.mark.parametrize("rule", [Standard(), NTK(original_len=128, factor=4.0), Linear(original_len=128, factor=4.0)])
@pytest.mark.parametrize("distance", [100, 300, 700, 1023])
def test_overshoot_is_that_of_angles_counted_one_by_one(rule, distance):
    _, found = extrapolation.compute_overshoot(one(rule), distance, 128)
    now = rule.inv_freq(16)
    expected = [reference.overshoot(t, 128, f, distance) for t, f in zip(THETA, now)]
    assert found == pytest.approx(expected, abs=2e-4)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (Standard(), 128),
        (Linear(original_len=128, factor=4.0), 512),
        (YaRN(original_len=128, factor=8.0), 1024),
        (LongRoPE(original_len=128, long=(8.0,) * 8), 1024),
    ],
)
def test_reach_is_the_length_that_interpolation_promises(rule, expected):
    assert extrapolation.find_seen_length(one(rule), 128) == expected


def test_ntk_falls_short_of_its_factor_and_dynamic_goes_beyond_its_training():
    assert 128 < (extrapolation.find_seen_length(one(NTK(original_len=128, factor=4.0)), 128) or 0) < 512
    assert (extrapolation.find_seen_length(one(Dynamic(original_len=128, factor=4.0)), 128) or 0) > 128


def test_a_rule_whose_pairs_all_made_whole_rotations_has_no_end_in_sight():
    assert extrapolation.find_seen_length(one(Standard(base=2.0)), 128) is None


def test_the_share_of_unseen_pairs_jumps_after_the_trained_length():
    (line,) = extrapolation.compute_tables([one(Standard())], SMALL)[""]
    slow = sum(f * 128 < 2 * math.pi for f in THETA) / 8
    at = dict(zip(line["distance"].tolist(), line["unseen"].tolist(), strict=True))
    assert (at[127], at[128], at[1023]) == (0.0, slow, slow)


@pytest.mark.parametrize("base", [200.0, 3000.0, 50_000.0])
def test_positive_reach_is_the_first_negative_sum(base):
    assert bases.find_positive_length(base, 16, 3000) == reference.first_negative(base, 16, 3000)


@pytest.mark.parametrize(
    ("context", "published"),
    [(1024, 4.3e3), *(pytest.param(*row, marks=pytest.mark.slow) for row in [(4096, 2.7e4), (8192, 8.4e4)])],
)
def test_the_least_base_is_the_published_one(context, published):
    """Men et al. 2024, table of lower bounds for a head of 128 dims; infima that a grid comes near from above."""
    line = bases.find_least_bases(AnalysisSettings(length=context, original=1024, head_dim=128))
    assert line["context"][-1] == context
    assert line["base"][-1] == pytest.approx(published, rel=0.08)


def test_the_table_of_bases_counts_complete_rotations():
    (facts_of,) = bases.compute_tables([], SMALL)["bases"]
    for base, longest, short, long in zip(*(facts_of[name] for name in facts_of.columns), strict=True):
        theta = reference.frequencies(base, 16)
        assert longest == pytest.approx(2 * math.pi / theta[-1])
        assert short == sum(f * 128 >= 2 * math.pi for f in theta)
        assert long == sum(f * 1024 >= 2 * math.pi for f in theta)


@pytest.mark.parametrize("rule", [Standard(), IRopePhase(), IRopeHeads(), LongRoPE(), Axial2D(), Partial(fraction=0.5)])
def test_table_bytes_are_those_of_the_modules_buffers(rule):
    from aptlab.nn.positions.rotary import build_rotary

    module = build_rotary(rule, head_dim=16, heads=8, kv_heads=8)
    expected = sum(table.numel() * table.element_size() for table in module.buffers())
    assert memory.count_table_bytes(split_rotary_parts("rule", rule, SMALL)) == expected > 0


def test_rules_that_compute_angles_when_asked_have_no_tables():
    assert memory.count_table_bytes(split_rotary_parts("rule", Learnable(), SMALL)) == 0
    assert memory.count_table_bytes(split_rotary_parts("rule", Dynamic(original_len=128), SMALL)) == 0


def test_whole_tables_are_as_large_as_published():
    setting = AnalysisSettings(length=8192, head_dim=128)
    full, half, own = memory.compute_tables(split_rotary_parts("standard", Standard(), setting), setting)[""]
    at = full["positions"] == 2**23
    assert full["bytes"][at][0] == 2**23 * 128 * 2 * 4  # cos and sin, D float32 each
    assert half["bytes"][at][0] == 2**23 * 64 * 2 * 4
    assert own["bytes"][at][0] == 4 * 4096 * 64 * 4


def test_precision_has_the_measured_orders_of_magnitude():
    """positions.md 2.2: at ten million positions 5e-2 for float32 angles, 5e-8 for two levels, 0.6 for bfloat16."""
    setting = AnalysisSettings(length=16384, head_dim=128)
    lines = {
        line.part: line
        for line in precision.compute_tables(split_rotary_parts("standard", Standard(), setting), setting)[""]
    }
    at = lines["two levels"]["position"].tolist().index(2**23)
    means = {part: line["mean"][at] for part, line in lines.items()}
    assert 0.02 < means["float32 angle"] < 0.08
    assert 0.3 < means["bfloat16 position"] < 1.5
    assert means["two levels"] < 1e-7
    early = {part: line["mean"][10] for part, line in lines.items()}  # position 2048
    assert early["float32 angle"] == pytest.approx(1.1e-5, rel=0.4)
    assert early["bfloat16 cos, sin"] == pytest.approx(1.6e-3, rel=0.25)


def test_precision_of_tables_that_carry_the_temperature_does_not_count_it_as_error():
    rule = YaRN(temperature_on="cos_sin", original_len=128)
    lines = {line.part: line for line in precision.compute_tables([one(rule)], SMALL)[""]}
    assert lines["two levels"]["max"].max() < 2e-6


def test_precision_of_coordinates_is_refused():
    with pytest.raises(ConfigError, match=r"what=precision: positions of these rules are coordinates"):
        precision.compute_tables(split_rotary_parts("axial2d", Axial2D(), SMALL), SMALL)


def test_bins_cover_every_small_distance_and_all_of_a_range():
    groups = make_distance_bins(5000)
    small = np.concatenate(groups)
    assert (small[:60] == np.arange(1, 61)).all()
    assert small.max() > 4900
    assert max(map(len, groups)) <= 64
    columns = summarize_bins(groups, np.concatenate(groups).astype(float))
    assert (columns["low"] <= columns["mean"]).all()
    assert (columns["mean"] <= columns["high"]).all()


def test_csv_keeps_every_digit():
    line = Curve(name="a b", columns={"n": np.array([1, 2]), "x": np.array([0.1, 1 / 3])}, part="p")
    rows = format_curves_csv([line]).splitlines()
    assert rows[0] == "rule,part,n,x"
    assert float(rows[2].split(",")[3]) == 1 / 3
    assert rows[1] == "a b,p,1,0.1"


def test_facts_name_what_one_should_know():
    rules = [(Llama3(original_len=128), "llama3"), (IRopePhase(), "irope_phase")]
    rows = summarize_rules([(rule, split_rotary_parts(name, rule, SMALL)) for rule, name in rules], SMALL)
    assert [row[0] for row in rows] == ["llama3", "irope_phase"]
    assert [row[6] for row in rows] == ["yes", "no"]
    assert "trained 128, target 1,024 tokens" in format_facts(rows, SMALL, terminal=False)


@pytest.mark.parametrize("name", sorted(ANALYSES))
def test_every_figure_is_drawn(name, tmp_path):
    parts = [
        *split_rotary_parts("yarn", YaRN(original_len=128), SMALL, number=0),
        *split_rotary_parts("irope_phase", IRopePhase(), SMALL, number=1),
        *split_rotary_parts("axial2d", Axial2D(), SMALL, number=2),
    ]
    analysis = ANALYSES[name]
    path = tmp_path / f"{name}.png"
    tables = analysis.compute_tables(parts, SMALL)
    analysis.draw_figure(tables, parts, SMALL, title=analysis.TITLE.format("three"), path=path)
    head = path.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    assert int.from_bytes(head[16:20]) == 1600
