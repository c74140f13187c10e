"""The encoder-decoder: equal to plain loops, causal in the target, blind to padding; alone, packed, cached the same."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from aptlab.errors import AptlabError, ConfigError
from aptlab.models.cost import count_pair_parameters, estimate_pair_flops
from aptlab.nn.attention import CrossAttention, FullAttention, LinearAttention, LogitRule
from aptlab.nn.context import ForwardContext, KeySource
from aptlab.nn.ffn import MatFormer, SwiGLU
from aptlab.nn.positions.absolute import LearnedPositions
from aptlab.nn.positions.bias import ALiBi, CoPE, LearnedBias, T5Bias
from aptlab.nn.positions.rope import IRope, NoRope, Standard, XPos, YaRN
from aptlab.nn.smooth import LeftSpin, LeftSpinSeed, MemorySmooth, PostNorm
from tests.models.making_pairs import SHAPE, VOCAB, make_pair_net
from tests.reference.encoder_decoder import encoder_decoder

SOURCE = torch.tensor([[3, 9, 14, 2, 7, 7, 1], [5, 20, 1, 0, 0, 0, 0]])
SEGMENTS = (torch.arange(7) < torch.tensor([[7], [3]])).long()
TARGET = torch.tensor([[1, 4, 9, 9, 12], [1, 8, 2, 0, 19]])
PARTS = {
    "plain": {},
    "no rope, alibi": {"rope": NoRope(), "bias": ALiBi},
    "t5": {"bias": T5Bias},
    "learned bias": {"bias": LearnedBias},
    "learned positions": {"rope": NoRope(), "embed": partial(LearnedPositions, length=16)},
    "yarn": {"rope": YaRN(factor=2.0, original_len=8)},
    "irope": {"rope": IRope(interval=2, chunk=4)},
    "left_spin": {"smooth": LeftSpin},
    "left_spin_seed": {"smooth": LeftSpinSeed},
    "memory": {"smooth": MemorySmooth},
    "post_norm": {"smooth": PostNorm},
    "qk_norm": {
        "attention": partial(FullAttention, qk_norm=True),
        "cross": partial(CrossAttention, qk_norm=True, bias=True, logits=LogitRule(softcap=5.0)),
    },
}


@pytest.fixture(params=PARTS)
def net(request):
    return make_pair_net(**PARTS[request.param]).double()


def logits(net, source=SOURCE, target=TARGET, segments=SEGMENTS, **given):
    return net(source, decoder_tokens=target, segments=segments, **given).logits


@pytest.mark.parametrize(("rope", "near"), [(NoRope(), 1e-10), (Standard(), 1e-5)], ids=["none", "float32 tables"])
def test_it_is_the_reference_in_float64(rope, near):
    net = make_pair_net(rope=rope).double()
    weights = {name: weight.numpy() for name, weight in net.state_dict().items()}
    theta = [0.0, 0.0] if rope == NoRope() else [10_000.0 ** (-2 * pair / 4) for pair in range(2)]
    sizes = {"depth": 2, "heads": 4, "kv_heads": 2, "head_dim": 4}
    for row, size in ((0, 7), (1, 3)):
        expected = encoder_decoder(weights, SOURCE[row, :size].tolist(), TARGET[row].tolist(), **sizes, theta=theta)
        got = logits(net)[row]
        assert torch.allclose(got, torch.as_tensor(expected), atol=near, rtol=near)


def test_a_later_target_token_changes_no_earlier_output_and_every_source_token_does(net):
    before = logits(net)
    for place in range(1, TARGET.shape[1]):
        changed = TARGET.clone()
        changed[:, place] = (changed[:, place] + 1) % VOCAB
        after = logits(net, target=changed)
        assert torch.equal(after[:, :place], before[:, :place])
        assert not torch.allclose(after[:, place:], before[:, place:])
    for place in range(3):
        changed = SOURCE.clone()
        changed[:, place] = (changed[:, place] + 1) % VOCAB
        moved = (logits(net, source=changed) - before).abs().amax(-1)
        assert moved.min() > 0


def test_padding_of_a_source_is_never_seen_and_a_batch_is_its_rows_alone(net):
    before = logits(net)
    other = torch.where(SEGMENTS == 0, 17, SOURCE)
    assert torch.equal(logits(net, source=other), before)
    for row, size in ((0, 7), (1, 3)):
        alone = logits(net, source=SOURCE[row : row + 1, :size], target=TARGET[row : row + 1], segments=None)
        assert torch.allclose(alone, before[row : row + 1], atol=1e-10)


def test_packed_pairs_are_separate_pairs():
    net = make_pair_net(rope=NoRope()).double()
    apart = logits(net)
    source = torch.cat((SOURCE[0], SOURCE[1, :3])).unsqueeze(0)
    packed = net(
        source,
        decoder_tokens=TARGET.flatten().unsqueeze(0),
        segments=torch.tensor([[1] * 7 + [2] * 3]),
        decoder_segments=torch.tensor([[1] * 5 + [2] * 5]),
    ).logits
    assert torch.allclose(packed, apart.flatten(0, 1).unsqueeze(0), atol=1e-10)


def test_cached_decoding_is_the_whole_pass_and_reads_the_source_once(net):
    encoded = net.encode(SOURCE, segments=SEGMENTS)
    calls = [block.cross.kv.register_forward_hook(lambda *_: counted.append(1)) for block in net.each_block()]
    counted: list[int] = []
    cache = net.new_cache(2, 5)
    parts = [
        net(decoder_tokens=TARGET[:, begin:end], encoded=encoded, cache=cache).logits
        for begin, end in ((0, 2), (2, 3), (3, 5))
    ]
    assert len(counted) == len(calls)
    assert torch.allclose(torch.cat(parts, 1), logits(net), atol=1e-10)
    assert cache.length == 5


def test_every_weight_learns_and_nothing_is_lost_by_recomputation(net):
    out = net(SOURCE, decoder_tokens=TARGET, segments=SEGMENTS, trace=True)
    out.logits.logsumexp(-1).sum().backward()
    still = [name for name, weight in net.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert [name for name in still if "bias" not in name] == []
    assert all(weight.grad.isfinite().all() for weight in net.parameters() if weight.grad is not None)
    sites = set(out.traces)
    assert not sites or sites == {f"{layer}/{site}" for layer in range(2) for site in list_sites(net)}


def list_sites(net):
    return [*net.encoder.each_block()[0].sites, *net.decoder.each_block()[0].sites]


def test_a_query_without_a_source_reads_zeros_and_one_without_a_pass_says_so():
    layer = CrossAttention(SHAPE, layer=0)
    x = torch.randn(1, 3, SHAPE.dim)
    source = KeySource(torch.randn(1, 2, SHAPE.dim), torch.tensor([[1, 0]]))
    segments = torch.tensor([[1, 2, 0]])
    read = layer(x, ForwardContext(3, segments=segments, source=source))
    assert read[0, 0].abs().sum() > 0
    assert not read[0, 1:].any()
    with pytest.raises(AptlabError, match=r"cross attention has nothing to read: .* give source=net\.encode\(tokens\)"):
        layer(x, ForwardContext(3))


def test_a_symmetric_bias_sees_both_sides_and_the_decoder_keeps_its_own():
    net = make_pair_net(bias=ALiBi)
    places = torch.arange(4).unsqueeze(0)
    both, left = net.encoder_biases[0](places, places), net.biases[0](places, places)
    assert torch.equal(both, both.mT)
    assert torch.equal(left.triu(1), torch.zeros_like(left))
    assert torch.equal(both.tril(), left.tril())


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            {"attention": LinearAttention},
            "attention=linear reads from left to right, and the encoder's site 0/encoder_att",
        ),
        ({"rope": XPos()}, "the rope XPos decays with the distance to earlier tokens, and the encoder's site"),
        (
            {"bias": CoPE},
            "bias: CoPE counts from a token to earlier ones .* use bias=none, alibi, kerple, t5 or learned",
        ),
        (
            {"ffn": partial(SwiGLU, nested=MatFormer(granularities=(1, 0.5)))},
            "ffn=matformer nests widths, which an enc",
        ),
        (
            {"cross": FullAttention},
            r"the decoder has the sites attention, cross, ffn and none of them reads the source",
        ),
    ],
)
def test_parts_that_do_not_go_together_are_refused_when_it_is_built(parts, message):
    with pytest.raises(ConfigError, match=message):
        make_pair_net(**parts)


def test_a_cache_of_another_source_is_refused():
    layer = CrossAttention(SHAPE, layer=0)
    context = ForwardContext(1, source=KeySource(torch.randn(3, 2, SHAPE.dim)))
    with pytest.raises(
        AptlabError, match="the source has 3 rows and the batch 2; a cache belongs to the source that it"
    ):
        layer(torch.randn(2, 1, SHAPE.dim), context)


def test_wrong_calls_say_what_is_missing():
    net = make_pair_net()
    for given in ({}, {"tokens": SOURCE, "encoded": net.encode(SOURCE)}):
        with pytest.raises(ConfigError, match="give either tokens of the source, or what encode"):
            net(decoder_tokens=TARGET, **given)
    with pytest.raises(ConfigError, match=r"width=0\.5: an encoder-decoder has no widths"):
        net.check_width(0.5)


def test_parameters_and_flops_are_those_of_the_formulas():
    net = make_pair_net()
    assert sum(count for _, count in count_pair_parameters(net)) == sum(weight.numel() for weight in net.parameters())
    dim, hidden, kv = SHAPE.dim, 24, 8
    attention, ffn = 2 * dim * dim + 2 * dim * kv, 3 * dim * hidden
    source, target = 10, 6
    encoder = source * (2 * 2 * (attention + ffn) + 2 * 4 * dim * (source + 1))
    cross = source * 2 * 2 * 2 * dim * kv + target * 2 * (2 * 2 * dim * dim + 4 * dim * source)
    decoder = target * (2 * 2 * (attention + ffn) + 2 * 4 * dim * (target + 1) / 2 + 2 * dim * VOCAB)
    assert estimate_pair_flops(net, source, target) == encoder + cross + decoder


def test_the_start_is_drawn_by_the_components_and_the_head_is_tied():
    net = make_pair_net(gain=1.0)
    assert net.head.weight is net.embed.weight
    assert abs(net.decoder.blocks[0].cross.q.weight.std().item() / 0.02 - 1) < 0.2
    assert abs(net.decoder.blocks[0].cross.out.weight.std().item() / (0.02 / 2) - 1) < 0.2
    assert net.rope == Standard()
