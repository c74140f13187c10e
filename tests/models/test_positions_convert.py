"""Models with added positions become models that rotate, and lose only their order."""

import argparse
import copy
import functools
import inspect
import typing
from functools import partial

import pytest
import torch
from torch.nn import functional as F

from aptlab.errors import ConfigError
from aptlab.models.positions_convert import compute_position_mean, convert_to_rope, strip_positions
from aptlab.nn.positions.absolute import LearnedPositions, SinusoidalPositions
from aptlab.nn.positions.bias import T5Bias
from aptlab.nn.positions.rope import NoRope, Standard
from aptlab.testing import decode_in_chunks, make_random_tokens, make_tiny_decoder

LEARNED = partial(LearnedPositions, length=32)


def net_with(embed, bias=None, **parts):
    return make_tiny_decoder(rope=NoRope(), embed=embed, bias=bias, **parts)


@pytest.mark.parametrize("embed", [LEARNED, SinusoidalPositions], ids=["learned", "sinusoidal"])
def test_the_copy_has_the_same_weights_and_no_added_positions(embed):
    net = net_with(embed)
    before = copy.deepcopy(net.state_dict())
    out = convert_to_rope(net, Standard(), fold=False)
    assert out.embed_positions is None
    assert out.rope == Standard()
    weights = out.state_dict()
    assert set(weights) == {name for name in before if not name.startswith("embed_positions.")}
    assert all(torch.equal(weight, before[name]) for name, weight in weights.items())
    assert all(torch.equal(weight, before[name]) for name, weight in net.state_dict().items())
    assert net.embed_positions is not None


def test_the_copy_is_the_model_built_with_rope_from_the_start():
    net, tokens = net_with(LEARNED), make_random_tokens(2, 20)
    fresh = make_tiny_decoder(rope=Standard(), seed=5)
    mean = compute_position_mean(net.embed_positions)
    fresh.load_state_dict(strip_positions(net.state_dict(), mean, tied=True))
    out = convert_to_rope(net, Standard())
    with torch.no_grad():
        assert torch.equal(out(tokens).logits, fresh(tokens).logits)
        assert (decode_in_chunks(out, tokens, [7, 1]) - out(tokens).logits).abs().max() < 2e-5


@pytest.mark.parametrize("embed", [LEARNED, SinusoidalPositions], ids=["learned", "sinusoidal"])
def test_no_other_constant_changes_what_the_first_layer_reads_less(embed):
    net = net_with(embed)
    added = net.embed_positions(torch.arange(32).unsqueeze(0))[0]
    folded = convert_to_rope(net, Standard(), length=32).embed.weight - net.embed.weight
    least = (added - folded[0]).square().mean()
    assert (folded - folded[0]).abs().max() < 1e-5
    for other in (torch.zeros(32), folded[0] + 0.01, added[0], added.median(0).values):
        assert least < (added - other).square().mean()


@pytest.mark.parametrize("tied", [True, False])
def test_folding_is_exact_where_all_positions_are_the_same(tied):
    net, tokens = net_with(LEARNED, tied=tied), make_random_tokens(2, 20)
    with torch.no_grad():
        net.embed_positions.embed.weight.copy_(torch.randn(32).expand(32, 32))
        expected = net(tokens).logits.log_softmax(-1)
        folded = convert_to_rope(net, NoRope())(tokens).logits.log_softmax(-1)
        dropped = convert_to_rope(net, NoRope(), fold=False)(tokens).logits.log_softmax(-1)
    assert (folded - expected).abs().max() < 1e-4
    assert (dropped - expected).abs().max() > 0.1


def test_the_head_stays_tied_or_untied():
    tied, untied = (
        convert_to_rope(net_with(LEARNED), Standard()),
        convert_to_rope(net_with(LEARNED, tied=False), Standard()),
    )
    assert tied.head.weight is tied.embed.weight
    assert untied.head.weight is not untied.embed.weight
    assert torch.equal(untied.head.weight, net_with(LEARNED, tied=False).head.weight)


def test_the_mean_is_that_of_the_trained_positions():
    table = net_with(LEARNED).embed_positions
    assert torch.allclose(compute_position_mean(table), table.embed.weight.mean(0), atol=1e-7)
    assert torch.allclose(compute_position_mean(table, 10), table.embed.weight[:10].mean(0), atol=1e-7)
    waves = SinusoidalPositions(8)
    assert torch.allclose(
        compute_position_mean(waves, 5000), waves(torch.arange(5000).unsqueeze(0))[0].mean(0), atol=1e-7
    )


def test_a_bias_stays():
    net = net_with(LEARNED, bias=T5Bias)
    out = convert_to_rope(net, Standard())
    assert torch.equal(out.biases[0].embed.weight, net.biases[0].embed.weight)
    assert out.blocks[0].attention.layer_positions.scores is out.biases[0]
    assert out.biases[0] is not net.biases[0]


def test_what_cannot_be_converted_names_the_way_out():
    with pytest.raises(ConfigError, match=r"embed=none: there is nothing to convert; `rope=…` alone"):
        convert_to_rope(make_tiny_decoder(), Standard())
    with pytest.raises(ConfigError, match=r"SinusoidalPositions has no length .* context that the model was trained"):
        convert_to_rope(net_with(SinusoidalPositions), Standard())


def losses(net, steps, *, seed):
    """Train on bytes of Python's own sources; the loss of every step."""
    text = torch.tensor(list((inspect.getsource(argparse) + inspect.getsource(typing)).encode("ascii", "ignore")))
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    seen = []
    for _ in range(steps):
        begin = torch.randint(len(text) - 65, (16, 1), generator=generator)
        tokens = text[begin + torch.arange(65)]
        loss = F.cross_entropy(net(tokens[:, :-1]).logits.flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen.append(loss.item())
    return seen


@functools.cache
def losses_of_a_new_one():
    return losses(make_tiny_decoder(rope=Standard(), gain=1.0, vocab=128), 60, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("embed", [partial(LearnedPositions, length=64), SinusoidalPositions], ids=["learned", "waves"])
def test_a_converted_model_learns_again_sooner_than_a_new_one(embed):
    net = net_with(embed, gain=1.0, vocab=128)
    trained = sum(losses(net, 300, seed=0)[-10:]) / 10
    again = losses(convert_to_rope(net, Standard(), length=64), 60, seed=1)
    fresh = losses_of_a_new_one()
    assert again[0] < fresh[0] - 1.0
    assert sum(again[-10:]) / 10 < min(trained, sum(fresh[-10:]) / 10 - 0.3)
