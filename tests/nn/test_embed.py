"""Positions added to the embedding: exact at any place, and errors that name the way out."""

import copy
from functools import partial

import numpy as np
import pytest
import torch

from aptlab.errors import AptlabError, ConfigError
from aptlab.nn.positions.absolute import LONGEST, LearnedPositions, NoEmbed, SinusoidalPositions
from aptlab.nn.positions.rope import NoRope
from aptlab.testing import decode_in_chunks, make_random_tokens, make_tiny_decoder
from tests.reference.absolute import sinusoid

FACTORIES = {"learned": partial(LearnedPositions, length=64), "sinusoidal": SinusoidalPositions}
PLACES = [0, 1, 255, 256, 4097, 65_535, 65_536, 131_072, 1_000_000, 9_999_999, LONGEST - 1]


def net_with(factory, **parts):
    return make_tiny_decoder(rope=NoRope(), embed=factory, **parts)


@pytest.mark.parametrize(("dim", "base"), [(8, 10_000.0), (64, 10_000.0), (6, 500.0)])
def test_sinusoids_are_the_papers_at_any_position(dim, base):
    module = SinusoidalPositions(dim, base=base, scale=1.0)
    got = module(torch.tensor([PLACES]))[0].numpy()
    expected = np.stack([sinusoid(place, dim, base) for place in PLACES])
    assert got.dtype == np.float32
    assert np.abs(got - expected).max() < 1e-6


def test_sinusoids_scale():
    plain, small = (SinusoidalPositions(16, scale=scale) for scale in (1.0, 0.5))
    positions = torch.arange(9).unsqueeze(0)
    assert torch.equal(small(positions), 0.5 * plain(positions))


def test_the_default_scale_is_the_papers_ratio_of_positions_to_tokens():
    ratio = SinusoidalPositions(64)(torch.arange(512).unsqueeze(0)).pow(2).mean().sqrt() / 0.02
    assert ratio == pytest.approx(0.5**0.5, rel=1e-6)  # the paper's embeddings have a root mean square of 1


def test_sinusoid_tables_are_small_and_keep_float32():
    module = SinusoidalPositions(1024)
    assert sum(table.nbytes for table in module.buffers()) == 12 * 1024 * 256
    assert not module.state_dict()
    before = {name: table.clone() for name, table in module.named_buffers()}
    for name, table in copy.deepcopy(module).bfloat16().named_buffers():
        assert torch.equal(table, before[name])


def test_learned_positions_are_rows_of_the_table():
    module = LearnedPositions(8, length=5)
    assert torch.equal(module(torch.tensor([[4, 0, 2]]))[0], module.embed.weight[[4, 0, 2]])


def test_learned_positions_do_not_decay():
    from aptlab.optim.adamw import make_parameter_groups

    net = net_with(FACTORIES["learned"])
    decayed, kept = (group["params"] for group in make_parameter_groups(net, 0.1))
    assert any(weight is net.embed_positions.embed.weight for weight in kept)
    assert not any(weight is net.embed_positions.embed.weight for weight in decayed)


def test_none_adds_nothing():
    assert NoEmbed(8)(torch.arange(3).unsqueeze(0)) is None
    tokens = make_random_tokens(1, 9)
    with torch.no_grad():
        assert torch.equal(net_with(NoEmbed)(tokens).logits, make_tiny_decoder(rope=NoRope())(tokens).logits)


@pytest.mark.parametrize("factory", FACTORIES.values(), ids=FACTORIES)
def test_cached_decoding_is_the_full_forward(factory):
    net, tokens = net_with(factory), make_random_tokens(2, 24)
    with torch.no_grad():
        assert (decode_in_chunks(net, tokens, [7, 1]) - net(tokens).logits).abs().max() < 2e-5


@pytest.mark.parametrize("factory", FACTORIES.values(), ids=FACTORIES)
def test_left_padding_and_packing_change_nothing(factory):
    net, first, second = net_with(factory), make_random_tokens(1, 9), make_random_tokens(1, 12, seed=1)
    segments = torch.tensor([[0] * 4 + [1] * 9 + [2] * 12])
    positions = torch.cat((torch.zeros(4, dtype=torch.long), torch.arange(9), torch.arange(12))).unsqueeze(0)
    tokens = torch.cat((first[:, :4], first, second), 1)
    with torch.no_grad():
        got = net(tokens, segments=segments, positions=positions).logits[:, 4:]
        expected = torch.cat((net(first).logits, net(second).logits), 1)
    assert (got - expected).abs().max() < 2e-5


@pytest.mark.parametrize("factory", FACTORIES.values(), ids=FACTORIES)
def test_absolute_positions_are_not_relative(factory):
    net, tokens = net_with(factory), make_random_tokens(1, 9)
    assert not factory(dim=8).relative
    positions = torch.arange(9).unsqueeze(0)
    with torch.no_grad():
        change = (net(tokens, positions=positions + 40).logits - net(tokens).logits).abs().max()
    assert change > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("factory", FACTORIES.values(), ids=FACTORIES)
def test_it_compiles_as_one_graph(factory):
    module, positions = factory(dim=8), torch.tensor([[0, 7, 33]])
    torch._dynamo.reset()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    assert torch.allclose(compiled(positions), module(positions), atol=1e-6)


def test_the_learned_table_takes_gradients():
    net = net_with(FACTORIES["learned"])
    net(make_random_tokens(1, 9)).logits.square().sum().backward()
    grad = net.embed_positions.embed.weight.grad
    assert grad[:9].abs().sum(-1).min() > 0
    assert not grad[9:].any()


def test_a_position_beyond_the_table_names_the_way_out():
    module = LearnedPositions(8, length=5)
    with pytest.raises(
        AptlabError,
        match=r"position 7 is outside \[0, 5\): length=5 has no row for it; convert .*`embed=none rope=sta",
    ):
        module(torch.tensor([[0, 7]]))
    with pytest.raises(AptlabError, match=r"position 16777216 is outside .*: embed=sinusoidal is exact below 16777216"):
        SinusoidalPositions(8)(torch.tensor([[LONGEST]]))


def test_a_compiled_graph_stops_at_a_position_beyond_the_table():
    torch._dynamo.reset()
    compiled = torch.compile(LearnedPositions(8, length=5), fullgraph=True, backend="aot_eager")
    with pytest.raises(RuntimeError, match=r"outside \[0, 5\)"):
        compiled(torch.tensor([[0, 7]]))


def test_a_negative_position_is_refused():
    for factory in FACTORIES.values():
        with pytest.raises(AptlabError, match=r"position -2 is negative; count from 0 at the first real token"):
            factory(dim=8)(torch.tensor([[0, -2]]))


def test_bad_sizes_name_the_way_out():
    with pytest.raises(ConfigError, match=r"^dim=7 is odd, and sinusoidal positions need pairs; use dim=8"):
        SinusoidalPositions(7)
    with pytest.raises(ConfigError, match=r"^base=1\.0 must be larger than 1"):
        SinusoidalPositions(8, base=1.0)
