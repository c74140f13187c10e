"""Each bias against a float64 reference, published values, released code, and what it refuses."""

import math

import numpy as np
import pytest
import torch

from aptlab.errors import ConfigError
from aptlab.nn.positions.bias import ALiBi, CoPE, Kerple, LearnedBias, NoBias, T5Bias
from aptlab.nn.positions.bias.alibi import compute_alibi_slopes
from aptlab.nn.positions.rope import NoRope, Standard
from aptlab.testing import make_random_tokens, make_tiny_decoder
from tests.reference import bias as reference

SIZES = {"heads": 6, "head_dim": 8, "layer": 0}
QUERIES, KEYS = [3, 4, 5, 200, 10_000_000], [0, 3, 4, 5, 100, 199, 200]


def assert_near_reference(module, value, tolerance=1e-6):
    """Largest difference to value(d, head) in units of max(1, |value|), over queries and keys at or before them."""
    got = module(torch.tensor([QUERIES]), torch.tensor([KEYS]))[0].detach().numpy()
    expected = reference.dense(value, QUERIES, KEYS, SIZES["heads"])
    error = np.abs(got - expected) / np.maximum(1, np.abs(expected))
    assert np.nanmax(error) < tolerance
    assert np.isfinite(error).sum() == np.isfinite(expected).sum() > 100


@pytest.mark.parametrize("heads", [1, 2, 3, 6, 8, 12, 20, 40])
def test_alibi_slopes_are_the_published_ones(heads):
    assert compute_alibi_slopes(heads) == pytest.approx(reference.alibi_slopes(heads), rel=1e-15)


def test_alibi_slopes_of_eight_heads_are_those_of_the_paper():
    assert compute_alibi_slopes(8) == (1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 128, 1 / 256)


def test_alibi_is_the_paper():
    assert_near_reference(ALiBi(**SIZES), lambda d, head: reference.alibi(d, head, SIZES["heads"]))


def test_alibi_equals_transformers_where_heads_are_a_power_of_two_or_not():
    bloom = pytest.importorskip("transformers.models.bloom.modeling_bloom")
    for heads in (4, 8, 12, 20):
        theirs = bloom.build_alibi_tensor(torch.ones(1, 9), heads, torch.float32)[:, 0]
        ours = ALiBi(heads=heads, head_dim=8, layer=0)(torch.tensor([[8]]), torch.arange(9).unsqueeze(0))[0, :, 0]
        assert torch.allclose(
            ours - ours[:, :1], theirs, atol=1e-6, rtol=0
        )  # theirs is n·slope: n - m up to a constant


@pytest.mark.parametrize(("buckets", "max_distance"), [(32, 128), (8, 32), (64, 512), (5, 9), (2, 3), (32, 17)])
def test_t5_buckets_are_exact(buckets, max_distance):
    found = T5Bias(**SIZES, buckets=buckets, max_distance=max_distance).bucket_of.tolist()
    assert found == [reference.t5_bucket(d, buckets, max_distance) for d in range(max_distance + 1)]
    assert set(found) <= set(range(buckets))
    assert found[-1] == buckets - 1


def test_t5_buckets_equal_transformers_at_every_distance():
    t5 = pytest.importorskip("transformers.models.t5.modeling_t5")
    distances = torch.arange(200_000)
    theirs = t5.T5Attention._relative_position_bucket(-distances, bidirectional=False)
    module = T5Bias(**SIZES)
    assert torch.equal(module.bucket_of[distances.clamp_max(128)], theirs)


def test_a_float32_logarithm_moves_an_edge_that_ours_does_not():
    t5 = pytest.importorskip("transformers.models.t5.modeling_t5")
    distances = torch.arange(82)
    theirs = t5.T5Attention._relative_position_bucket(
        -distances, bidirectional=False, num_buckets=48, max_distance=81
    ).tolist()
    ours = T5Bias(**SIZES, buckets=48, max_distance=81).bucket_of.tolist()
    assert [d for d in range(82) if ours[d] != theirs[d]] == [54]  # 54 = 24 · (81 / 24)^(2/3) begins a bucket
    assert ours[54] == reference.t5_bucket(54, 48, 81) == 40
    assert ours[53] == 39


def test_t5_reads_its_table_by_bucket():
    module = T5Bias(**SIZES)
    table = module.embed.weight.detach().double().numpy()
    assert_near_reference(module, lambda d, head: table[reference.t5_bucket(d, 32, 128), head])


def test_learned_reads_its_table_by_distance_and_keeps_the_last_row_beyond():
    module = LearnedBias(**SIZES, max_distance=150)
    table = module.embed.weight.detach().double().numpy()
    assert_near_reference(module, lambda d, head: table[min(d, 150), head])
    far = module(torch.tensor([[9_999_999]]), torch.tensor([[0]]))[0, :, 0, 0]
    assert torch.equal(far, module.embed.weight[150])


@pytest.mark.parametrize(("kernel", "value"), [("log", reference.kerple_log), ("power", reference.kerple_power)])
def test_kerple_is_the_paper(kernel, value):
    module = Kerple(**SIZES, kernel=kernel)
    r1, r2 = (rate.tolist() for rate in module.rates())
    assert_near_reference(module, lambda d, head: value(d, r1[head], r2[head]), tolerance=3e-6)


@pytest.mark.parametrize(("kernel", "limits"), [("log", (2.0, 1.0)), ("power", (1.0, 2.0))])
def test_kerple_starts_in_the_published_ranges_and_stays_positive(kernel, limits):
    torch.manual_seed(0)
    module = Kerple(heads=2000, head_dim=8, layer=0, kernel=kernel)
    for rate, limit in zip(module.rates(), limits):
        assert 0 < rate.min() < 0.03 * limit
        assert 0.97 * limit < rate.max() <= limit * (1 + 1e-6)
    with torch.no_grad():
        module.size.fill_(-30.0)
        module.slope.fill_(-30.0)
    assert all((rate > 0).all() for rate in module.rates())


def test_cope_is_the_paper():
    torch.manual_seed(0)
    module = CoPE(heads=2, head_dim=8, layer=0, max_pos=4).double()
    torch.nn.init.normal_(module.embed.weight)
    q, k = torch.randn(1, 2, 9, 8, dtype=torch.float64), torch.randn(1, 2, 12, 8, dtype=torch.float64)
    hidden = {1, 6}
    allowed = torch.tensor([[j <= i + 3 and j not in hidden for j in range(12)] for i in range(9)]).view(1, 1, 9, 12)
    got = module(q, k, allowed)[0].detach().numpy()
    table = module.embed.weight.detach().numpy()
    for h in range(2):
        expected = reference.cope(q[0, h].numpy(), k[0, h].numpy(), table, lambda i, j: bool(allowed[0, 0, i, j]))
        assert np.nanmax(np.abs(got[h] - expected)) < 1e-12


def test_cope_gradient_is_that_of_differences():
    torch.manual_seed(0)
    module = CoPE(heads=1, head_dim=4, layer=0, max_pos=3).double()
    q, k = (torch.randn(1, 1, 5, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    allowed = torch.ones(5, 5, dtype=torch.bool).tril().view(1, 1, 5, 5)
    assert torch.autograd.gradcheck(lambda a, b: module(a, b, allowed).masked_fill(~allowed, 0.0), (q, k))


@pytest.mark.parametrize("kernel", ["log", "power"])
def test_kerple_gradient_is_that_of_differences(kernel):
    module = Kerple(heads=2, head_dim=4, layer=0, kernel=kernel).double()
    places = torch.arange(4).unsqueeze(0)

    def out(size, slope):
        return torch.func.functional_call(module, {"size": size, "slope": slope}, (places, places))

    weights = [weight.detach().clone().requires_grad_() for weight in (module.size, module.slope)]
    assert torch.autograd.gradcheck(out, weights)


@pytest.mark.parametrize("factory", [ALiBi, T5Bias, Kerple, LearnedBias, CoPE])
@pytest.mark.parametrize("rope", [NoRope(), Standard()], ids=repr)
def test_a_bias_changes_the_model_beside_any_rotation(factory, rope):
    tokens = make_random_tokens(1, 10)
    plain, biased = make_tiny_decoder(rope=rope), make_tiny_decoder(rope=rope, bias=factory)
    biased.load_state_dict(plain.state_dict(), strict=False)
    with torch.no_grad():
        assert (plain(tokens).logits - biased(tokens).logits).abs().max() > 1e-4


def test_layers_share_a_module_where_it_says_so():
    for factory, count in ((ALiBi, 1), (T5Bias, 1), (Kerple, 1), (LearnedBias, 3), (CoPE, 3), (NoBias, 0)):
        assert len(make_tiny_decoder(bias=factory).biases) == count


def test_nothing_is_zero_everywhere():
    assert not NoBias(**SIZES)(torch.tensor([QUERIES]), torch.tensor([KEYS])).any()


def test_bad_arguments_name_the_way_out():
    with pytest.raises(
        ConfigError, match=r"^max_distance=16 must be larger than buckets // 2 = 16, .* buckets 32, max_dist"
    ):
        T5Bias(**SIZES, max_distance=16)
    with pytest.raises(ConfigError, match=r"^kernel='logg'; did you mean log\?"):
        Kerple(**SIZES, kernel="logg")


def test_alibi_slopes_are_distinct_and_fall_off_by_a_factor():
    ratios = [a / b for a, b in zip(compute_alibi_slopes(16), compute_alibi_slopes(16)[1:])]
    assert ratios == pytest.approx([math.sqrt(2)] * 15)
