"""Rules that scale a branch or the stream: each as its paper writes it, where it starts, and where it may stand."""

from functools import partial

import pytest
import torch

from aptlab.config import build, check, compose
from aptlab.errors import AptlabError, ConfigError
from aptlab.nn.attention import FullAttention
from aptlab.nn.block import Block, Site
from aptlab.nn.ffn import SwiGLU
from aptlab.nn.layer import Layer
from aptlab.nn.norm import LayerNorm
from aptlab.nn.positions.layer import LayerPositions
from aptlab.nn.shape import Shape
from aptlab.nn.smooth import (
    DeepNorm,
    DepthDecay,
    LayerScale,
    LeftSpin,
    MemorySmooth,
    Plain,
    ResidualScale,
    ReZero,
    ScaledBranch,
    SiteInfo,
)
from aptlab.testing import make_random_tokens, make_tiny_decoder
from aptlab.testing.smooth import join_once, make_site
from aptlab.testing.tiny import make_decoder
from tests.reference import smooth as reference

DIM, BLOCKS = 16, 5
INFO = SiteInfo(depth=BLOCKS)


def steps(seed=0, dtype=torch.float64):
    return torch.randn(2, 2, 3, DIM, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def randomize(site):
    for weight in site.parameters():
        torch.nn.init.normal_(weight)
    return site


SCALES = {
    "rezero": (ReZero, lambda site, layer: site.weight.item()),
    "layerscale": (LayerScale, lambda site, layer: site.weight.tolist()),
    "factor": (partial(ResidualScale, factor=0.22), lambda site, layer: 0.22),
    "1 / sqrt(2 L)": (ResidualScale, lambda site, layer: (2 * BLOCKS) ** -0.5),
} | {
    f"{schedule} to {last}": (
        partial(DepthDecay, schedule=schedule, last=last),
        lambda site, layer, schedule=schedule, last=last: reference.depth_decay(
            schedule, layer, BLOCKS, last or (2 * BLOCKS) ** -0.5
        ),
    )
    for schedule in ("constant", "linear", "geometric")
    for last in (None, 0.3)
}


@pytest.mark.parametrize("name", SCALES)
def test_a_scaled_branch_equals_the_reference_in_every_block(name):
    factory, find_weight = SCALES[name]
    u, delta = steps()
    for layer in range(BLOCKS):
        site = randomize(make_site(factory, INFO, layer).double())
        out, carry, _ = join_once(site, u, delta)
        weight = find_weight(site, layer)
        for b, t in ((0, 0), (1, 2)):
            expected = reference.scaled_sum(u[b, t].tolist(), delta[b, t].tolist(), weight)
            assert torch.allclose(out[b, t], torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)
        assert carry is None


def test_one_block_decays_nowhere():
    assert make_site(partial(DepthDecay, last=0.3), SiteInfo(depth=1)).factor == 1
    with pytest.raises(ConfigError, match=r"^schedule=cosine is not known; allowed: constant, geometric, linear"):
        DepthDecay(DIM, layer=0, site="ffn", schedule="cosine")


@pytest.mark.parametrize("factory", [ResidualScale, DepthDecay, DeepNorm])
def test_a_rule_by_depth_says_that_it_does_not_know_it(factory):
    u, delta = steps()
    with pytest.raises(AptlabError, match=rf"^{factory.__name__} goes by the depth .*call bind_site\(SiteInfo"):
        join_once(factory(DIM, layer=0, site="ffn"), u, delta)


@pytest.mark.parametrize("depth", [1, 18, 19, 24, 25, 48])
def test_layerscale_starts_as_its_paper_says_for_the_depth(depth):
    shape = Shape(dim=8, depth=depth, heads=1, hidden=8)
    net = make_decoder(shape, smooth=LayerScale)
    found = {weight.item() for block in net.each_block() for weight in block.ffn_smooth.weight}
    assert found == {torch.tensor(reference.layer_scale_start(depth)).item()}
    given = make_decoder(shape, smooth=partial(LayerScale, start=0.3))
    assert (given.blocks[-1].attention_smooth.weight == 0.3).all()


def test_rezero_starts_as_the_identity_and_every_site_leaves_it():
    net, tokens = make_tiny_decoder(smooth=ReZero).train(), make_random_tokens(2, 8)
    assert torch.equal(net(tokens).logits, net.head(net.norm(net.embed(tokens))))
    net(tokens).logits.logsumexp(-1).sum().backward()
    for block in net.each_block():
        for site in (block.attention_smooth, block.ffn_smooth):
            assert site.weight.shape == (1,)
            assert site.weight.grad.abs() > 0


def test_residual_scale_by_depth_starts_as_plain_and_a_given_factor_does_not():
    tokens = make_random_tokens(2, 12)
    plain, by_depth, given = (
        make_tiny_decoder(smooth=factory)(tokens).logits
        for factory in (Plain, ResidualScale, partial(ResidualScale, factor=6**-0.5))
    )
    assert (by_depth - plain).abs().max() < 1e-4
    assert (given - plain).abs().max() > 0.1


def test_output_matrices_can_hold_a_given_factor():
    tokens = make_random_tokens(2, 12)
    scaled, plain = make_tiny_decoder(smooth=partial(ResidualScale, factor=0.25)), make_tiny_decoder(smooth=Plain)
    with torch.no_grad():
        for block in plain.each_block():
            block.attention.out.weight.mul_(0.25)
            block.ffn.down.weight.mul_(0.25)
        assert (plain(tokens).logits - scaled(tokens).logits).abs().max() < 1e-5


def test_scales_take_no_weight_decay():
    from aptlab.optim.adamw import make_parameter_groups

    net = make_tiny_decoder(smooth=partial(ScaledBranch, scale=LayerScale, join=ReZero))
    free = {id(weight) for weight in make_parameter_groups(net, 0.1)[1]["params"]}
    sites = [site for block in net.each_block() for site in (block.attention_smooth, block.ffn_smooth)]
    assert all(id(weight) in free for site in sites for weight in site.parameters())


def test_a_wider_weight_multiplies_without_rounding_twice():
    u, delta = steps(dtype=torch.bfloat16)
    site = randomize(LayerScale(DIM, layer=0, site="ffn"))
    expected = (u.float() + site.weight * delta.float()).bfloat16()
    assert torch.equal(join_once(site, u, delta)[0], expected)


# DeepNorm


def test_deepnorm_with_its_norm_equals_the_reference():
    shape = Shape(dim=DIM, depth=BLOCKS, heads=2, hidden=24)
    site = partial(Site, norm=None, smooth=DeepNorm, norm_joined=LayerNorm)
    sites = {"attention": site(layer=FullAttention), "ffn": site(layer=SwiGLU)}
    block = Block(shape, layer=2, positions=LayerPositions(), sites=sites).double()
    u, delta = steps()
    got = block.ffn_norm_joined(join_once(block.ffn_smooth, u, delta)[0])
    for b, t in ((0, 0), (1, 2)):
        expected = reference.deep_norm(u[b, t].tolist(), delta[b, t].tolist(), BLOCKS, 1e-5)
        assert torch.allclose(got[b, t], torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)


def test_deepnorm_starts_the_weights_that_carry_values_smaller():
    shape = Shape(dim=64, depth=8, heads=4, kv_heads=2, hidden=256)
    torch.manual_seed(0)
    net = make_decoder(shape, smooth=DeepNorm, post_norm=True)
    block, beta = net.blocks[3], (8 * 8) ** -0.25
    values = 2 * block.attention.head_dim
    rows = {"q and k": block.attention.qkv.weight[:-values], "v": block.attention.qkv.weight[-values:]}
    rows |= {"out": block.attention.out.weight, "in": block.ffn.gate_up.weight, "down": block.ffn.down.weight}
    for name, weight in rows.items():
        wanted = 0.02 if name == "q and k" else 0.02 * beta
        assert weight.std().item() == pytest.approx(wanted, rel=0.05), name
    assert block.ffn_smooth.alpha == pytest.approx(16**0.25)
    again = make_decoder(shape, smooth=partial(DeepNorm, alpha=2.0, beta=0.5), post_norm=True)
    assert again.blocks[0].ffn_smooth.alpha == 2.0
    assert again.blocks[0].ffn.down.weight.std().item() == pytest.approx(0.01, rel=0.05)


def test_deepnorm_goes_by_the_joins_of_a_decoder_with_cross_attention():
    site = make_site(DeepNorm, SiteInfo(depth=6, sites=3, norm=False, norm_joined=True))
    assert (site.alpha, site.beta) == (pytest.approx(18**0.25), pytest.approx(72**-0.25))


class Silent(Layer):
    """A layer that does not say which of its weights carry values."""

    def __init__(self, shape, *, layer):
        super().__init__()

    def forward(self, x, context):
        return x


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({}, r"^DeepNorm normalises the stream behind every join .*the site attention has .*use block=post_norm"),
        ({"post_norm": True, "ffn": Silent}, r"^Silent does not say which of its weights carry values; write value_w"),
    ],
)
def test_deepnorm_refuses_what_makes_no_sense(parts, message):
    with pytest.raises(ConfigError, match=message):
        make_decoder(Shape(dim=8, depth=1, heads=1, hidden=8), smooth=DeepNorm, **parts)


# Combinations


@pytest.mark.parametrize("join", [LeftSpin, MemorySmooth, partial(ScaledBranch, scale=ReZero, join=Plain)])
def test_a_scale_in_front_of_a_join_is_that_join_of_the_scaled_branch(join):
    site = make_site(partial(ScaledBranch, scale=partial(LayerScale, start=0.3), join=join), INFO)
    u, delta = steps(dtype=torch.float32)
    alone = make_site(join, INFO)
    alone.load_state_dict(site.join.state_dict())
    got, expected = join_once(site, u, delta, trace=True), join_once(alone, u, 0.3 * delta, trace=True)
    assert torch.equal(got[0], expected[0])
    assert got[2].keys() == expected[2].keys()


def test_a_combination_starts_and_stands_as_its_parts_do():
    rule = partial(ScaledBranch, scale=partial(LayerScale, start=0.5), join=ResidualScale)
    site = make_decoder(Shape(dim=8, depth=4, heads=1, hidden=8), smooth=rule).blocks[0].ffn_smooth
    assert (site.scale.weight == 0.5).all()
    assert site.join.factor == 8**-0.5


WRONG = [
    (["smooth=residual_scale", "smooth.factor=0"], r"smooth\.factor: must be a finite number > 0, got 0"),
    (["smooth=depth_decay", "smooth.last=1.5"], r"smooth\.last: must be in \(0, 1\], got 1.5"),
    (["smooth=layerscale", "smooth.start=-1"], r"smooth\.start: must be a finite number > 0, got -1"),
    (["smooth=scaled"], r"smooth=scaled: is smooth=residual_scale now"),
]


@pytest.mark.parametrize(("words", "message"), WRONG)
def test_wrong_values_are_named_before_anything_is_built(words, message):
    with pytest.raises(ConfigError, match=message):
        check(compose("train", words))


def test_deepnorm_brings_its_block_and_says_so_where_another_is_chosen():
    words = ["size=debug", "vocab=61", "smooth=deepnorm"]
    config = compose("train", words)
    assert config.choices["block"] == "post_norm"
    build(config.resolved()["model"])
    other = compose("train", [*words, "block=sandwich"])
    with pytest.raises(ConfigError, match=r"attention\.smooth: DeepNorm normalises the stream .*use block=post_norm"):
        build(other.resolved()["model"])
