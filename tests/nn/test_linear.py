"""Linear attention against a quadratic float64 reference, and that it is linear, causal and recurrent."""

from functools import partial

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from aptlab.errors import AptlabError, ConfigError
from aptlab.nn.attention.linear import LinearAttention, LinearAttentionState, apply_feature_map
from aptlab.nn.context import ForwardContext
from aptlab.nn.positions.bias import ALiBi
from aptlab.nn.positions.layer import LayerPositions
from aptlab.nn.positions.rope import Growth, NoRope, Standard, YaRN
from aptlab.nn.positions.rotary import RotaryEmbedding
from aptlab.nn.shape import Shape
from aptlab.testing import decode_in_chunks, make_random_tokens, make_tiny_decoder
from tests.helpers import bound
from tests.reference.linear_attention import attend

SHAPE = Shape(dim=24, depth=1, heads=4, kv_heads=2, head_dim=8, hidden=8)
FORMS = ("numerator", "one_plus_cos")


def made(form, rule=None, *, chunk=3, place=None, **options):
    torch.manual_seed(0)
    if place is None:
        place = LayerPositions(rotary=None if rule is None else RotaryEmbedding(rule, head_dim=8, heads=4, kv_heads=2))
    return bound(LinearAttention(SHAPE, layer=0, form=form, chunk=chunk, **options), place).double().eval()


def inputs(tokens=11, batch=2):
    return torch.randn(batch, tokens, 24, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def expected(layer, x, places, theta, sees, factor=1.0):
    """The layer's output for one row [T, C]."""
    joined = x.numpy() @ layer.qkv.weight.detach().numpy().T
    q, k, v = (part.reshape(len(x), -1, 8) for part in np.split(joined, [32, 48], axis=1))
    mixed = attend(factor * q, k, v, places, theta, layer.form, sees)
    return mixed.reshape(len(x), -1) @ layer.out.weight.detach().numpy().T


def causal(i, j):
    return j <= i


@pytest.mark.parametrize("chunk", [1, 3, 4, 11, 128])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rule", [None, Standard()], ids=repr)
def test_it_is_the_quadratic_formula(form, rule, chunk):
    layer, x = made(form, rule, chunk=chunk), inputs()
    got = layer(x, ForwardContext(11)).detach().numpy()
    theta = () if rule is None else rule.inv_freq(8)
    outputs = np.stack([expected(layer, row, range(11), theta, causal) for row in x])
    assert np.abs(got - outputs).max() < (1e-12 if rule is None else 1e-6)  # rotary tables are float32


def test_without_rotation_both_forms_are_one():
    one, two = (made(form) for form in FORMS)
    assert torch.allclose(one(inputs(), ForwardContext(11)), two(inputs(), ForwardContext(11)), atol=1e-12, rtol=0)


def test_float32_is_near_float64():
    for form in FORMS:
        layer, x = made(form, Standard()), inputs()
        expected = layer(x, ForwardContext(11))
        assert (layer.float()(x.float(), ForwardContext(11)) - expected).abs().max() < 2e-6


def weights_of(form, places):
    """The weight of each key for each query, [T, T]: values are unit vectors, so that the output lists weights."""
    shape = Shape(dim=24, depth=1, heads=1, kv_heads=1, head_dim=24, hidden=8)
    rotary = RotaryEmbedding(Standard(), head_dim=24)
    layer = bound(LinearAttention(shape, layer=0, form=form, chunk=5), LayerPositions(rotary=rotary)).double()
    with torch.no_grad():
        torch.nn.init.normal_(layer.qkv.weight, std=3.0, generator=torch.Generator().manual_seed(0))
        layer.qkv.weight[48:] = torch.eye(24)
        layer.out.weight.copy_(torch.eye(24))
        return layer(torch.eye(24, dtype=torch.float64).unsqueeze(0), ForwardContext(24, positions=places))[0]


@pytest.mark.parametrize("spread", [1, 50])
def test_one_plus_cos_weights_are_not_negative_and_sum_to_one(spread):
    weights = weights_of("one_plus_cos", torch.arange(24).unsqueeze(0) * spread)
    assert weights.min() >= -1e-7
    assert torch.allclose(weights.sum(-1), torch.ones(24, dtype=torch.float64), atol=1e-6)
    assert not weights.triu(1).any()


def test_numerator_weights_may_be_negative_and_do_not_sum_to_one():
    weights = weights_of("numerator", torch.arange(24).unsqueeze(0) * 3)
    assert weights.min() < -1e-3
    assert (weights.sum(-1) - 1).abs().max() > 0.05


@pytest.mark.parametrize("form", FORMS)
def test_shifting_all_positions_changes_nothing(form):
    layer, x, places = made(form, Standard()), inputs(), torch.arange(11).unsqueeze(0)
    still = layer(x, ForwardContext(11))
    for shift in (1, 977, 131_072, 9_999_000):
        assert (layer(x, ForwardContext(11, positions=places + shift)) - still).abs().max() < 2e-6


@pytest.mark.parametrize("form", FORMS)
def test_packed_documents_and_padding_are_the_quadratic_formula(form):
    """Padding stands left, between and right; documents begin inside chunks and at their edges."""
    layer, x = made(form, Standard(), chunk=4), inputs(14)
    segments = torch.tensor([[0, 0, 1, 1, 1, 1, 0, 2, 2, 2, 5, 5, 0, 0], [3] * 8 + [1] * 6])
    places = torch.tensor([[0, 0, 0, 1, 2, 3, 0, 0, 1, 2, 0, 1, 0, 0], [*range(8), *range(6)]])
    got = layer(x, ForwardContext(14, positions=places, segments=segments)).detach()
    for row in range(2):
        sees = partial(lambda ids, i, j: j <= i and ids[i] == ids[j], segments[row].tolist())
        outputs = expected(layer, x[row], places[row].tolist(), Standard().inv_freq(8), sees)
        real = segments[row] != 0
        assert (got[row] - torch.from_numpy(outputs))[real].abs().max() < 1e-6
        assert got.isfinite().all()


def test_documents_apart_are_equal_bit_for_bit_where_chunks_agree():
    """Sums start anew, so what came before leaves no rounding behind."""
    layer, x = made("numerator", chunk=4).float(), inputs(16, 1).float()
    x[:, :8] *= 1e4
    segments = torch.tensor([[1] * 8 + [2] * 8])
    together = layer(x, ForwardContext(16, segments=segments))[:, 8:]
    assert torch.equal(together, layer(x[:, 8:], ForwardContext(8, segments=segments[:, 8:])))


def net_with(form, **parts):
    attention = partial(LinearAttention, form=form, chunk=4)
    return make_tiny_decoder(**({"rope": Standard(), "attention": attention} | parts))


@pytest.mark.parametrize("chunks", [[6, 1], [1], [9, 4, 7], [20]])
@pytest.mark.parametrize("form", FORMS)
def test_cached_decoding_is_the_full_forward(form, chunks):
    net, tokens = net_with(form), make_random_tokens(2, 20)
    with torch.no_grad():
        assert (decode_in_chunks(net, tokens, chunks) - net(tokens).logits).abs().max() < 2e-5


@pytest.mark.parametrize("form", FORMS)
def test_left_padded_rows_decode_as_alone(form):
    net, rows = net_with(form), [make_random_tokens(1, 12), make_random_tokens(1, 7, seed=1)]
    padded = torch.cat((rows[0], torch.cat((torch.zeros(1, 5, dtype=torch.long), rows[1]), 1)))
    segments = torch.tensor([[1] * 12, [0] * 5 + [1] * 7])
    places = torch.stack((torch.arange(12), (torch.arange(12) - 5).clamp_min(0)))
    more = make_random_tokens(2, 3, seed=2)
    with torch.no_grad():
        cache = net.new_cache(2, 15)
        parts = [net(padded, positions=places, segments=segments, cache=cache).logits]
        for i in range(3):
            at = torch.tensor([[12 + i], [7 + i]])
            ones = torch.ones(2, 1, dtype=torch.long)
            parts.append(net(more[:, i : i + 1], positions=at, segments=ones, cache=cache).logits)
        got = torch.cat(parts, 1)
        for row, begin in ((0, 0), (1, 5)):
            alone = net(torch.cat((rows[row], more[row : row + 1]), 1)).logits
            assert (got[row : row + 1, begin:] - alone).abs().max() < 2e-5


@pytest.mark.parametrize("form", FORMS)
def test_a_row_does_not_see_its_batch(form):
    net, tokens = net_with(form), make_random_tokens(3, 13)
    with torch.no_grad():
        together = net(tokens).logits
        for row in range(3):
            assert (net(tokens[row : row + 1]).logits - together[row : row + 1]).abs().max() < 2e-5


def test_a_cached_document_ends_where_the_next_begins():
    net, first, second = net_with("numerator"), make_random_tokens(1, 9), make_random_tokens(1, 6, seed=1)
    with torch.no_grad():
        cache = net.new_cache(1, 15)
        net(first, segments=torch.full((1, 9), 1), positions=torch.arange(9).unsqueeze(0), cache=cache)
        got = net(second, segments=torch.full((1, 6), 2), positions=torch.arange(6).unsqueeze(0), cache=cache).logits
        assert (got - net(second).logits).abs().max() < 2e-5


def test_the_state_has_a_fixed_size():
    net = net_with("one_plus_cos")
    cache = net.new_cache(2, 40)
    sizes = []
    with torch.no_grad():
        for tokens in (1, 30, 9):
            net(make_random_tokens(2, tokens), cache=cache)
            state = cache.states["0/attention"]
            assert isinstance(state, LinearAttentionState)
            sizes.append([tuple(part.shape) for part in state.sums])
    assert sizes == [[(2, 2, 48, 17)]] * 3  # [B, K, 3D, D + 1]
    assert cache.bytes() == 0


class Largest(TorchDispatchMode):
    """Remembers the largest tensor that any operation made, and the largest product of its last two sizes."""

    def __init__(self):
        super().__init__()
        self.numbers = self.square = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, torch.Tensor):
                self.numbers = max(self.numbers, tensor.numel())
                self.square = max(self.square, min(tensor.shape[-2:], default=0) if tensor.ndim > 1 else 0)
        return out


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_memory_and_work_grow_with_tokens_and_not_with_their_square(form, packed):
    layer = made(form, Standard(), chunk=16).float()
    seen, kept = [], []
    for tokens in (512, 1024):
        x = torch.randn(1, tokens, 24, requires_grad=True)
        segments = (torch.arange(tokens) // 100 + 1).unsqueeze(0) if packed else None
        saved = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, saved=saved: saved.append(t.numel()) or t, lambda t: t):
            with Largest() as largest:
                out = layer(x, ForwardContext(tokens, segments=segments))
            out.sum().backward()
        seen.append(largest)
        kept.append(sum(saved))
    assert kept[1] <= 2.05 * kept[0]
    assert seen[1].numbers <= 2.05 * seen[0].numbers
    assert seen[1].numbers < 1024 * 1024
    assert (
        seen[1].square <= 128
    )  # never [T, T]: the smaller of the last two sizes is a chunk's, a head's or the layer's


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_gradients_are_those_of_differences(form, packed):
    layer, x = made(form, Standard(), chunk=3), inputs(5, 1).requires_grad_()
    segments = torch.tensor([[1, 1, 2, 2, 2]]) if packed else None
    assert torch.autograd.gradcheck(lambda a: layer(a, ForwardContext(5, segments=segments)), (x,))


@pytest.mark.parametrize("form", FORMS)
def test_it_compiles_as_one_graph(form):
    layer, x = made(form, Standard()).float(), inputs().float()
    torch._dynamo.reset()
    for segments in (None, torch.tensor([[1] * 4 + [2] * 7] * 2)):
        compiled = torch.compile(
            lambda a, ids: layer(a, ForwardContext(11, segments=ids)), fullgraph=True, backend="eager"
        )
        assert torch.allclose(compiled(x, segments), layer(x, ForwardContext(11, segments=segments)), atol=1e-6)


def test_bfloat16_autocast_sums_in_float32():
    layer, x = made("numerator", Standard()).float(), inputs().float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = layer(x, ForwardContext(11))
    assert out.dtype == torch.bfloat16
    assert (out.float() - layer(x, ForwardContext(11))).abs().max() < 0.02


def test_features_keep_their_digits():
    x = torch.tensor([-60.0, -20.0, -1.0, 0.0, 2.0])
    exact = [np.exp(-60.0), np.exp(-20.0), np.exp(-1.0), 1.0, 3.0]
    assert apply_feature_map(x).tolist() == pytest.approx(exact, rel=1e-6)


def test_far_values_stay_finite():
    for form in FORMS:
        layer, x = made(form, Standard()).float(), 1e4 * inputs().float()
        x.requires_grad_()
        out = layer(x, ForwardContext(11))
        out.sum().backward()
        assert out.isfinite().all()
        assert x.grad.isfinite().all()


def test_a_temperature_and_growth_scale_queries_before_the_feature():
    rule = YaRN(factor=8.0, original_len=4)
    layer, x = made("numerator", rule), inputs()
    outputs = expected(layer, x[0], range(11), rule.inv_freq(8), causal, factor=rule.temperature)
    assert np.abs(layer(x, ForwardContext(11))[0].detach().numpy() - outputs).max() < 1e-6
    grown = made("numerator", place=LayerPositions(growth=Growth(floor=4, scale=0.5)))
    factor = np.array([1 + 0.5 * np.log1p((m + 1) // 4) for m in range(11)])[:, None, None]
    outputs = expected(grown, x[0], range(11), (), causal, factor=factor)
    assert np.abs(grown(x, ForwardContext(11))[0].detach().numpy() - outputs).max() < 1e-6


def test_chunked_layers_stay_inside_blocks_of_positions():
    layer, x = made("numerator", place=LayerPositions(chunk=4), chunk=3), inputs()
    outputs = expected(layer, x[0], range(11), (), lambda i, j: j <= i and i // 4 == j // 4)
    assert np.abs(layer(x, ForwardContext(11))[0].detach().numpy() - outputs).max() < 1e-12


def test_qk_norm_and_bias_are_used():
    layer = made("numerator", Standard(), qk_norm=True, bias=True)
    with torch.no_grad():
        before = layer(inputs(), ForwardContext(11))
        layer.q_norm.weight.uniform_(0.2, 3.0)
        layer.out.bias.fill_(1.0)
        assert (layer(inputs(), ForwardContext(11)) - before).abs().max() > 0.1


def test_what_cannot_be_named_the_way_out():
    with pytest.raises(ConfigError, match=r"^form='numerater'; did you mean numerator\?"):
        made("numerater")
    with pytest.raises(ConfigError, match=r"no scores to add a bias to; use bias=none, or attention=full"):
        make_tiny_decoder(rope=NoRope(), attention=LinearAttention, bias=ALiBi)
    with pytest.raises(ConfigError, match=r"cannot be normalised after it; .* or attention=full"):
        made("numerator", place=LayerPositions(norm_after=True))
    with pytest.raises(ConfigError, match=r"YaRN puts its temperature on cosines.*use its temperature_on=logits"):
        made("one_plus_cos", YaRN(factor=8.0, original_len=4, temperature_on="cos_sin"))


def test_a_segment_that_comes_back_is_refused():
    with pytest.raises(AptlabError, match=r"segment of row 1 comes back after another one.*use attention=full"):
        made("numerator")(inputs(5), ForwardContext(5, segments=torch.tensor([[1] * 5, [1, 2, 2, 1, 1]])))
