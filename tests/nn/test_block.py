"""Forms of a block, norms on queries and keys, capped logits: each as its paper writes it, and what is refused."""

import functools
from functools import partial

import numpy as np
import pytest
import torch

from aptlab.config import build, compose
from aptlab.errors import ConfigError
from aptlab.models import HeadRule
from aptlab.nn.attention import FullAttention, LogitRule, QKNorm
from aptlab.nn.attention.dispatch import compute_attention
from aptlab.nn.attention.rotation import rotate_queries_keys
from aptlab.nn.attention.spec import AttentionSpec, Heads
from aptlab.nn.block import Block, Site
from aptlab.nn.context import ForwardContext
from aptlab.nn.ffn import SwiGLU
from aptlab.nn.norm import RMSNorm
from aptlab.nn.positions.layer import LayerPositions
from aptlab.nn.shape import Shape
from aptlab.nn.smooth import Plain
from aptlab.testing import decode_in_chunks, make_random_tokens, make_tiny_decoder
from tests.reference import block as papers
from tests.reference.attention import attend
from tests.reference.norm import layer_norm, rms_norm

T = 7
NORMS = {
    "pre_norm": ("attention_norm", "ffn_norm"),
    "sandwich": ("attention_norm", "attention_norm_after", "ffn_norm", "ffn_norm_after"),
    "reordered": ("attention_norm_after", "ffn_norm_after"),
    "parallel": ("attention_norm", "ffn_norm"),
    "parallel_shared": ("norm",),
    "post_norm": ("attention_norm_joined", "ffn_norm_joined"),
}


def composed(*words):
    """A decoder of a command line, in float64, with seeded weights large enough to matter."""
    net = build(compose("train", ["size=debug", "context=32", "vocab=61", *words]).resolved()["model"])
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in net.named_parameters():
            around = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            weight.copy_(around + 0.3 * torch.randn(weight.shape, generator=generator))
    return net.double().eval()


@pytest.mark.parametrize("form", NORMS)
def test_a_block_is_its_papers(form):
    net = composed(f"block={form}")
    block = net.blocks[0]
    x = torch.randn(1, T, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def run(name):
        def of(rows):
            context = ForwardContext(T)
            context.enter_site(f"0/{name}")
            return getattr(block, name)(torch.from_numpy(rows).unsqueeze(0), context)[0].numpy()

        return of

    def norm(name):
        weight = getattr(block, name).weight.numpy()
        return lambda rows: np.stack([rms_norm(row, weight) for row in rows])

    with torch.no_grad():
        got, _ = block(x, ForwardContext(T), {})
        expected = getattr(papers, form)(x[0].numpy(), run("attention"), run("ffn"), *map(norm, NORMS[form]))
    assert np.abs(got[0].numpy() - expected).max() < 1e-12
    assert {name.rpartition(".")[0] for name, _ in block.named_parameters() if "norm" in name} == set(NORMS[form])


SMOOTHS = ["none", "post_norm", "left_spin", "left_spin_seed", "memory", "rezero", "left_spin_layerscale", "deepnorm"]


@functools.cache
def resolved(word):
    return compose("train", ["size=debug", "context=32", "vocab=61", "attention.qk_norm=true", word]).resolved()


@pytest.mark.parametrize("smooth", SMOOTHS)
@pytest.mark.parametrize("form", NORMS)
def test_every_form_trains_with_every_smoothing_and_reads_with_a_cache(form, smooth):
    model, node = resolved(f"block={form}")["model"], resolved(f"smooth={smooth}")["smooth"]
    sites = {name: {**site, "smooth": node} for name, site in model["block"]["sites"].items()}
    if smooth == "deepnorm" and form != "post_norm":
        with pytest.raises(ConfigError, match=r"DeepNorm normalises the stream .*use block=post_norm"):
            build({**model, "block": {**model["block"], "sites": sites}})
        return
    torch.manual_seed(0)
    net = build({**model, "block": {**model["block"], "sites": sites}})
    tokens = make_random_tokens(2, 24)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
    losses = []
    for _ in range(3):
        loss = torch.nn.functional.cross_entropy(net(tokens).logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > losses[1] > losses[2]
    with torch.no_grad():
        assert (decode_in_chunks(net.eval(), tokens, [9, 4, 1]) - net(tokens).logits).abs().max() < 1e-5


PRESETS = ["gemma2", "gemma3", "olmo2", "olmo3", "neox", "cohere", "cohere2", "stablelm", "phi2"]


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_builds_the_model_it_is_named_after(name):
    net = composed(f"model={name}")
    tokens = make_random_tokens(1, 20)
    torch.nn.functional.cross_entropy(net(tokens).logits[0, :-1], tokens[0, 1:]).backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in net.parameters())


def test_a_norm_of_the_whole_block_needs_sites_side_by_side():
    site = Site(layer=FullAttention, norm=None, smooth=Plain)
    shape = Shape(dim=32, depth=1, heads=2, hidden=48)
    with pytest.raises(ConfigError, match=r"norm is read by all sites of a parallel block.*set parallel=true"):
        Block(shape, layer=0, positions=LayerPositions(), sites={"attention": site}, norm=RMSNorm)
    site = Site(layer=FullAttention, norm=None, smooth=Plain, norm_joined=RMSNorm)
    with pytest.raises(ConfigError, match=r"norm_joined normalises the stream between.*set parallel=false, or"):
        Block(shape, layer=0, positions=LayerPositions(), sites={"attention": site}, parallel=True)


def random_heads(tokens=11, heads=4, kv_heads=2, dim=8):
    generator = torch.Generator().manual_seed(0)
    sizes = (heads, kv_heads, kv_heads)
    return Heads(*(2 * torch.randn(2, h, tokens, dim, generator=generator, dtype=torch.float64) for h in sizes))


@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("rows", [1024, 3])
def test_capped_attention_is_the_papers(window, rows, monkeypatch):
    monkeypatch.setattr("aptlab.nn.attention.capped.ROWS", rows)
    heads = random_heads()
    spec = AttentionSpec(scale=0.7, window=window, softcap=1.5)
    got = compute_attention(heads, ForwardContext(11), spec)
    q, k, v = (x[1].transpose(0, 1).numpy() for x in heads)
    expected = attend(q, k, v, 0.7, lambda m, n: n <= m and m - n < (window or 11), softcap=1.5)
    assert np.abs(got[1].transpose(0, 1).numpy() - expected).max() < 1e-12
    far = compute_attention(heads, ForwardContext(11), spec._replace(softcap=1e9))
    plain = compute_attention(heads, ForwardContext(11), spec._replace(softcap=None))
    assert (far - plain).abs().max() < 1e-12
    assert (got - plain).abs().max() > 1e-2


def test_capped_attention_reads_padded_rows_pieces_and_sinks_as_the_whole():
    options = {"logits": LogitRule(scale=0.5, softcap=2.0), "sinks": True}
    net = make_tiny_decoder(attention=partial(FullAttention, **options))
    tokens = make_random_tokens(2, 20)
    whole = net(tokens).logits
    assert (decode_in_chunks(net, tokens, [7, 1, 5, 1]) - whole).abs().max() < 1e-4
    segments = torch.tensor([[0] * 4 + [1] * 20, [0] * 4 + [1] * 20])
    positions = (torch.arange(24) - 4).clamp_min(0).expand(2, -1)
    padded = torch.cat((torch.zeros(2, 4, dtype=torch.long), tokens), dim=1)
    got = net(padded, segments=segments, positions=positions).logits[:, 4:]
    assert (got - whole).abs().max() < 1e-4


def test_the_scale_of_attention_is_the_one_given():
    layer = FullAttention(Shape(dim=32, depth=1, heads=2, hidden=48), layer=0, logits=LogitRule(scale=0.3))
    assert layer.attention_spec().scale == 0.3
    assert FullAttention(Shape(dim=32, depth=1, heads=2, hidden=48), layer=0).attention_spec().scale == 0.25


RULES = [QKNorm(kind=kind, over=over) for kind in ("rms", "layer") for over in ("head", "each_head", "all_heads")] + [
    QKNorm(kind="layer", bias=True)
]


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_queries_and_keys_are_normalised_over_what_the_rule_says(rule):
    heads, dim, eps = 3, 8, 1e-3
    norm = rule.build(heads, dim, eps).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in norm.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator))
    x = torch.randn(2, heads, T, dim, generator=generator, dtype=torch.float64)
    weights = {name.rpartition(".")[2]: weight.detach().numpy() for name, weight in norm.named_parameters()}

    def one(row, weight):
        return rms_norm(row, weight, eps) if rule.kind == "rms" else layer_norm(row, weight, weights.get("bias"), eps)

    got = norm(x).detach().numpy()
    for b in range(2):
        for t in range(T):
            token = x[b, :, t].numpy()
            if rule.over == "all_heads":
                expected = one(token.reshape(-1), weights["weight"]).reshape(heads, dim)
            else:
                own = weights["weight"] if rule.over == "each_head" else [weights["weight"]] * heads
                expected = np.stack([one(row, weight) for row, weight in zip(token, own)])
            assert np.abs(got[b, :, t] - expected).max() < 1e-12


@pytest.mark.parametrize("over", ["head", "each_head", "all_heads"])
def test_a_norm_after_the_rotation_sees_rotated_heads(over):
    rule = QKNorm(over=over, where="after")
    net = make_tiny_decoder(attention=partial(FullAttention, qk_norm=rule))
    layer, context = net.blocks[0].attention, ForwardContext(T)
    x = torch.randn(2, T, 32, generator=torch.Generator().manual_seed(0))
    qk = layer.split_heads(x)[:, : layer.heads + layer.kv_heads]
    with torch.no_grad():
        for weight in (*layer.q_norm.parameters(), *layer.k_norm.parameters()):
            weight.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(1))
        context.prepare(net.rotaries)
        q, k = rotate_queries_keys(layer, qk, context)
        rotary = layer.layer_positions.rotary
        rotated = rotary.rotate(qk, context.angles(rotary))
        late = (layer.q_norm(rotated[:, : layer.heads]), layer.k_norm(rotated[:, layer.heads :]))
        early = rotary.rotate(layer.normalize_qk(qk), context.angles(rotary))
    assert (q - late[0]).abs().max() < 1e-5
    assert (k - late[1]).abs().max() < 1e-5
    assert (q - early[:, : layer.heads]).abs().max() > 0.1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"kind": "rsm"}, r"kind='rsm'; allowed: rms, layer"),
        ({"over": "heads"}, r"over='heads'; allowed: head, each_head, all_heads"),
        ({"where": "later"}, r"where='later'; allowed: before, after"),
        ({"bias": True}, r"bias=true goes with kind=layer and over=head, not with rms, head"),
    ],
)
def test_a_norm_of_no_kind_is_refused(given, message):
    with pytest.raises(ConfigError, match=message):
        QKNorm(**given)


@pytest.mark.parametrize("rule", [LogitRule, HeadRule])
def test_a_cap_must_be_positive(rule):
    with pytest.raises(ConfigError, match="softcap must be a finite number > 0, got -1"):
        rule(softcap=-1)


def test_a_head_scales_adds_and_caps_in_this_order():
    plain = make_tiny_decoder(tied=False)
    net = make_tiny_decoder(tied=False, head=HeadRule(scale=0.5, softcap=2.0, bias=True))
    net.load_state_dict(plain.state_dict(), strict=False)
    tokens = make_random_tokens(1, 9)
    expected = 2.0 * torch.tanh(0.5 * (plain(tokens).logits + net.head.bias) / 2.0)
    assert (net(tokens).logits - expected).abs().max() < 1e-6
    assert net.head.bias.abs().max() > 0


def test_the_layers_of_a_parallel_block_do_not_see_each_other():
    """The feed-forward's part is that of the stream which entered, whatever attention adds."""
    sites = {
        "attention": Site(layer=FullAttention, norm=RMSNorm, smooth=Plain),
        "ffn": Site(layer=SwiGLU, norm=RMSNorm, smooth=Plain),
    }
    torch.manual_seed(0)
    shape = Shape(dim=32, depth=1, heads=2, hidden=48)
    block = Block(shape, layer=0, positions=LayerPositions(), sites=sites, parallel=True)
    x = torch.randn(1, T, 32)
    before, _ = block(x, ForwardContext(T), {})
    given = block.attention(block.attention_norm(x), ForwardContext(T))
    with torch.no_grad():
        block.attention.out.weight.zero_()
    after, _ = block(x, ForwardContext(T), {})
    assert (before - after - given).abs().max() < 1e-6
