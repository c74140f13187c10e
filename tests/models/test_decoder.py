"""Laws of the decoder, over every rotary and smoothing option. Legend: B batch, T tokens."""

from functools import partial

import numpy as np
import pytest
import torch

from aptlab.errors import AptlabError
from aptlab.nn.attention import FullAttention
from aptlab.nn.ffn import GELU, SwiGLU
from aptlab.nn.norm import LayerNorm
from aptlab.nn.positions.rope import NTK, Linear, Llama3, NoRope, Standard, YaRN
from aptlab.nn.positions.rotary import LONGEST
from aptlab.nn.shape import Shape
from aptlab.nn.smooth import Gate, LeftSpin, LeftSpinSeed, MemorySmooth, Plain
from aptlab.testing import decode_in_chunks, make_random_tokens, make_tiny_decoder
from tests.reference.decoder import decoder as reference

ROPES = {
    "none": NoRope(),
    "standard": Standard(),
    "linear": Linear(),
    "ntk": NTK(),
    "yarn": YaRN(factor=4.0, original_len=8),
    "llama3": Llama3(original_len=64),
}
SMOOTHS = {
    "none": Plain,
    "left_spin": LeftSpin,
    "softclip": partial(LeftSpin, gate=Gate(kind="softclip")),
    "left_spin_seed": LeftSpinSeed,
    "memory": MemorySmooth,
}
EXACT = 2e-5  # float32, logits of size 10

ropes = pytest.mark.parametrize("rope", ROPES.values(), ids=ROPES)
smooths = pytest.mark.parametrize("smooth", SMOOTHS.values(), ids=SMOOTHS)


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


def differ(got, expected):
    assert got.shape == expected.shape
    assert got.isfinite().all()
    return (got.double() - expected.double()).abs().max().item()


def remember(net):
    """Give every spike memory something to remember, so that it acts."""
    for module in net.modules():
        if isinstance(module, MemorySmooth):
            directions = torch.randn(4, module.dim, generator=torch.Generator().manual_seed(module.layer))
            for _ in range(2):
                module.update(directions, torch.full((4,), 2.0))
    return net


@ropes
@smooths
@pytest.mark.parametrize("chunks", [[1], [9, 1], [5, 7, 1, 3]], ids=str)
def test_cached_decoding_is_the_full_forward(rope, smooth, chunks):
    net, tokens = remember(make_tiny_decoder(rope=rope, smooth=smooth)), make_random_tokens(2, 22)
    assert differ(decode_in_chunks(net, tokens, chunks), net(tokens).logits) < EXACT


@ropes
@smooths
def test_a_row_is_the_same_alone_and_in_a_batch(rope, smooth):
    net, tokens = remember(make_tiny_decoder(rope=rope, smooth=smooth)), make_random_tokens(3, 17)
    together = net(tokens).logits
    for row in range(3):
        assert differ(net(tokens[row : row + 1]).logits, together[row : row + 1]) < EXACT


@ropes
@smooths
def test_left_padding_changes_nothing(rope, smooth):
    net, tokens, pad = remember(make_tiny_decoder(rope=rope, smooth=smooth)), make_random_tokens(1, 12), 5
    padded = torch.cat((make_random_tokens(1, pad, seed=9), tokens), dim=1)
    places = torch.arange(pad + 12).unsqueeze(0)
    segments, positions = (places >= pad).long(), (places - pad).clamp_min(0)
    alone = net(tokens).logits
    assert differ(net(padded, positions=positions, segments=segments).logits[:, pad:], alone) < EXACT
    cache = net.new_cache(1, pad + 12)
    first = net(padded[:, :9], positions=positions[:, :9], segments=segments[:, :9], cache=cache).logits[:, pad:]
    rest = [
        net(padded[:, t : t + 1], positions=positions[:, t : t + 1], cache=cache).logits for t in range(9, pad + 12)
    ]
    assert differ(torch.cat((first, *rest), dim=1), alone) < EXACT


@ropes
@smooths
def test_packed_documents_are_the_same_as_separate_ones(rope, smooth):
    net, lengths = remember(make_tiny_decoder(rope=rope, smooth=smooth)), (5, 1, 8)
    documents = [make_random_tokens(1, n, seed=n) for n in lengths]
    segments = torch.cat([torch.full((1, n), i + 1) for i, n in enumerate(lengths)], dim=1)
    positions = torch.cat([torch.arange(n).unsqueeze(0) for n in lengths], dim=1)
    packed = net(torch.cat(documents, dim=1), positions=positions, segments=segments).logits
    assert differ(packed, torch.cat([net(d).logits for d in documents], dim=1)) < EXACT


@smooths
def test_a_later_token_changes_nothing_before_it(smooth):
    net, tokens = remember(make_tiny_decoder(smooth=smooth)), make_random_tokens(2, 16)
    other = tokens.clone()
    other[:, 9:] = (other[:, 9:] + 7) % 61
    one, two = net(tokens).logits, net(other).logits
    assert differ(two[:, :9], one[:, :9]) < 1e-6
    assert differ(two[:, 9:], one[:, 9:]) > 0.1


@ropes
def test_logits_depend_on_distances_not_on_places(rope):
    net, tokens = make_tiny_decoder(rope=rope), make_random_tokens(1, 12)
    places = torch.arange(12).unsqueeze(0)
    here = net(tokens).logits
    for shift in (1, 5000, 131_072, 9_000_000):
        assert differ(net(tokens, positions=places + shift).logits, here) < 1e-4


@ropes
def test_order_matters(rope):
    """A change of an early token's place reaches the last logits; without rotary positions the causal mask does it."""
    net, tokens = make_tiny_decoder(rope=rope), make_random_tokens(1, 12)
    swapped = tokens[:, [1, 0, *range(2, 12)]]
    assert differ(net(swapped).logits[:, -1:], net(tokens).logits[:, -1:]) > 1e-3


@pytest.mark.parametrize("option", ["none", "standard", "yarn"])
@pytest.mark.parametrize("qk_norm", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 2e-6), (torch.float32, 1e-5)], ids=str)
def test_the_module_is_the_float64_reference(option, qk_norm, dtype, tolerance):
    """float64 is limited by the float32 tables of cosines; without rotary positions it agrees to 1e-10."""
    rope = ROPES[option]
    parts = {
        "attention": partial(FullAttention, qk_norm=qk_norm, bias=True),
        "ffn": partial(SwiGLU, bias=True),
        "tied": False,
    }
    net = make_tiny_decoder(rope=rope, gain=4.0, **parts).to(dtype)
    tokens, segments = make_random_tokens(1, 10), [1] * 6 + [2] * 4
    theta = None if option == "none" else rope.inv_freq(16)
    weights = {name: weight.double().numpy() for name, weight in net.state_dict().items()}
    sizes = {"depth": 3, "heads": 4, "kv_heads": 2, "head_dim": 16}
    expected = reference(
        weights, tokens[0].tolist(), theta=theta, temperature=rope.temperature, segments=segments, **sizes
    )
    positions = torch.tensor([[*range(6), *range(4)]])
    got = net(tokens, positions=positions, segments=torch.tensor([segments])).logits[0].double().numpy()
    assert np.abs(expected).max() > 1
    scale = max(1.0, np.abs(expected).max())
    limit = 1e-10 if option == "none" and dtype == torch.float64 else tolerance
    assert np.abs(got - expected).max() / scale <= limit


def test_shared_key_heads_equal_repeated_ones():
    shared = make_tiny_decoder()
    shape = Shape(dim=32, depth=3, heads=4, kv_heads=4, head_dim=16, hidden=48)
    full = make_tiny_decoder(shape=shape)
    state = shared.state_dict()
    for name in [name for name in state if name.endswith("qkv.weight")]:
        q, k, v = state[name].split([64, 32, 32])
        k, v = (part.unflatten(0, (2, 16)).repeat_interleave(2, dim=0).flatten(0, 1) for part in (k, v))
        state[name] = torch.cat((q, k, v))
    full.load_state_dict(state)
    tokens = make_random_tokens(2, 14)
    assert differ(full(tokens).logits, shared(tokens).logits) < EXACT


PARTS = {
    "gelu": {"ffn": GELU},
    "layer norm": {"norm": LayerNorm},
    "untied": {"tied": False},
    "qk_norm": {"attention": partial(FullAttention, qk_norm=True)},
    "biases": {"attention": partial(FullAttention, bias=True), "ffn": partial(SwiGLU, bias=True)},
}


@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
def test_every_part_decodes_with_a_cache(parts):
    net, tokens = make_tiny_decoder(**parts), make_random_tokens(2, 15)
    assert differ(decode_in_chunks(net, tokens, [6, 1]), net(tokens).logits) < EXACT


def test_a_tied_head_is_the_embedding_and_counts_once():
    tied, free = make_tiny_decoder(tied=True), make_tiny_decoder(tied=False)
    assert tied.head.weight is tied.embed.weight
    assert free.head.weight is not free.embed.weight
    sizes = [sum(weight.numel() for weight in net.parameters()) for net in (tied, free)]
    assert sizes[1] - sizes[0] == 61 * 32
    moved = tied.to("meta").to_empty(device="cpu")
    assert moved.head.weight is moved.embed.weight


def test_bfloat16_is_near_float32():
    net, tokens = make_tiny_decoder(gain=4.0), make_random_tokens(2, 32)
    exact = net(tokens).logits
    rounded = net.bfloat16()(tokens).logits
    assert rounded.dtype == torch.bfloat16
    assert differ(rounded, exact) < 0.05 * exact.abs().max().item()


def test_bfloat16_decodes_with_a_bfloat16_cache():
    net, tokens = make_tiny_decoder(gain=4.0).bfloat16(), make_random_tokens(2, 20)
    assert net.new_cache(2, 20).layers["0/attention"].keys_BKSD.dtype == torch.bfloat16
    full = net(tokens).logits
    assert differ(decode_in_chunks(net, tokens, [8, 1]), full) < 0.05 * full.abs().max().item()


def test_traces_are_named_by_layer_and_site():
    net = make_tiny_decoder(smooth=LeftSpin)
    traces = net(make_random_tokens(1, 4), trace=True).traces
    assert sorted(traces) == [f"{layer}/{site}" for layer in range(3) for site in ("attention", "ffn")]
    assert net(make_random_tokens(1, 4)).traces == {}


def test_a_full_cache_is_refused():
    net = make_tiny_decoder()
    cache = net.new_cache(1, 4)
    with pytest.raises(AptlabError, match="the cache holds 4 tokens and 5 are needed; make it longer"):
        net(make_random_tokens(1, 5), cache=cache)


def test_more_positions_than_the_tables_cover_are_refused():
    net = make_tiny_decoder()
    cache = net.new_cache(1, 4)
    cache.length = LONGEST
    with pytest.raises(AptlabError, match=f"{LONGEST + 1} tokens are more than the {LONGEST} positions"):
        net(make_random_tokens(1, 1), cache=cache)


def test_new_weights_have_the_published_spread():
    shape = Shape(dim=128, depth=8, heads=4, hidden=256)
    net = make_tiny_decoder(shape=shape, gain=1.0, vocab=512)
    state = net.state_dict()
    assert state["embed.weight"].std().item() == pytest.approx(0.02, rel=0.05)
    assert state["blocks.0.attention.qkv.weight"].std().item() == pytest.approx(0.02, rel=0.05)
    for name in ("attention.out", "ffn.down"):
        assert state[f"blocks.3.{name}.weight"].std().item() == pytest.approx(0.02 / 4, rel=0.05)


def test_a_cache_made_under_autocast_has_its_dtype():
    net, tokens = make_tiny_decoder(gain=4.0), make_random_tokens(2, 20)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert net.new_cache(2, 20).layers["0/attention"].keys_BKSD.dtype == torch.bfloat16
        got, full = decode_in_chunks(net, tokens, [8, 1]), net(tokens).logits
    assert differ(got.float(), full.float()) < 0.05 * full.abs().max().item()
    assert net.new_cache(2, 20).layers["0/attention"].keys_BKSD.dtype == torch.float32
