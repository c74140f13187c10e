"""The seams of a model: sites, slots, outputs and initialisation, with parts that no option has yet."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.nn import functional as F

from aptlab.errors import AptlabError, ConfigError
from aptlab.nn.attention import Attention, AutopoieticAttention, FullAttention, LinearAttention
from aptlab.nn.attention.dispatch import compute_attention
from aptlab.nn.attention.spec import AttentionSpec, Heads
from aptlab.nn.context import ForwardContext, KeySource
from aptlab.nn.ffn import FeedForward, SwiGLU
from aptlab.nn.positions.rope import Learnable, XPos
from aptlab.nn.shape import Shape
from aptlab.nn.smooth import LeftSpin, MemorySmooth, Plain, Smooth
from aptlab.testing.tiny import SHAPE, decode_in_chunks, make_decoder, make_random_tokens, make_tiny_decoder


class RoutedFFN(FeedForward):
    """Two experts under a router that starts shut, with a balance loss: what a mixture of experts needs."""

    def __init__(self, shape: Shape, *, layer: int) -> None:
        super().__init__()
        self.router = nn.Linear(shape.dim, 2)
        self.experts = nn.ModuleList(SwiGLU(shape, layer=layer) for _ in range(2))

    def reset_parameters(self, std: float, depth: int) -> None:
        nn.init.zeros_(self.router.weight)
        nn.init.constant_(self.router.bias, -4.0)
        for expert in self.experts:
            expert.reset_parameters(std / 2, depth)

    def skip_flops(self) -> float:
        return sum(2.0 * weight.numel() for weight in self.experts[1].parameters())

    def forward(self, x_BTC: Tensor, context: ForwardContext) -> Tensor:
        share_BT2 = self.router(x_BTC).softmax(-1)
        context.set_aux("balance", 2 * share_BT2.mean((0, 1)).square().sum())
        first, second = (expert(x_BTC, context) for expert in self.experts)
        return share_BT2[..., :1] * first + share_BT2[..., 1:] * second


class RunningMean(Attention):
    """The mean of all tokens so far; its state is a sum and a count."""

    def __init__(self, shape: Shape, *, layer: int) -> None:
        super().__init__()
        self.mix = nn.Linear(shape.dim, shape.dim)

    max_keys = 0  # type: ignore[assignment]

    def count_flops(self, tokens: int) -> float:
        return 0.0

    def forward(self, x_BTC: Tensor, context: ForwardContext) -> Tensor:
        before = context.state or (torch.zeros_like(x_BTC[:, :1]), 0)
        sums_BTC = before[0] + x_BTC.cumsum(1)
        counts_T1 = before[1] + torch.arange(1, x_BTC.shape[1] + 1, device=x_BTC.device).unsqueeze(1)
        context.set_state((sums_BTC[:, -1:], before[1] + x_BTC.shape[1]))
        return self.mix(sums_BTC / counts_T1)


class CrossAttention(Attention):
    """One head that takes its keys from the context's source."""

    max_keys = 0  # type: ignore[assignment]

    def __init__(self, shape: Shape, *, layer: int) -> None:
        super().__init__()
        self.q, self.kv = nn.Linear(shape.dim, 8), nn.Linear(shape.dim, 8 + shape.dim)

    def count_flops(self, tokens: int) -> float:
        return 2.0 * tokens * 16

    def forward(self, x_BTC: Tensor, context: ForwardContext) -> Tensor:
        assert context.source is not None
        k, v = self.kv(context.source.states).split([8, x_BTC.shape[-1]], dim=-1)
        return F.scaled_dot_product_attention(self.q(x_BTC), k, v)


VARIANTS = {
    "balance": {"ffn": RoutedFFN},
    "left_spin": {"smooth": LeftSpin},
    "memory": {"smooth": MemorySmooth},
    "learned rope": {"rope": Learnable()},
    "linear": {"attention": LinearAttention},
    "state": {"attention": RunningMean},
    "autopoietic": {"attention": partial(AutopoieticAttention, inner=LinearAttention)},
    "all": {
        "ffn": RoutedFFN,
        "smooth": LeftSpin,
        "rope": Learnable(),
        "attention": partial(FullAttention, qk_norm=True),
    },
}


def loss_of(net: nn.Module, tokens: Tensor, **given: Tensor) -> Tensor:
    out = net(tokens, trace=True, **given)
    return out.logits.logsumexp(-1).mean() + sum(out.aux.values(), torch.zeros(()))


def gradients(net: nn.Module) -> list[Tensor]:
    return [torch.zeros(()) if weight.grad is None else weight.grad for weight in net.parameters()]


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("autocast", [False, True], ids=["float32", "bfloat16"])
def test_recomputed_blocks_give_the_same_loss_gradients_and_statistics(name, autocast):
    tokens = make_random_tokens(2, 12)
    packed = {"segments": torch.tensor([[1] * 5 + [2] * 7, [1] * 12]), "positions": torch.arange(12).repeat(2, 1)}
    given = {} if name == "state" else packed
    plain, again = (make_tiny_decoder(gain=4.0, **VARIANTS[name]).train() for _ in range(2))
    again.blocks = nn.ModuleList(checkpoint_wrapper(block) for block in again.blocks)
    losses = []
    for net in (plain, again):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            losses.append(loss_of(net, tokens, **given))
        losses[-1].backward()
    assert torch.equal(losses[0], losses[1])
    assert all(torch.equal(a, b) for a, b in zip(gradients(plain), gradients(again), strict=True))
    first, second = (net(tokens, trace=True, **given) for net in (plain, again))
    assert (
        first.traces.keys()
        == second.traces.keys()
        == {f"{i}/{site}" for i in range(3) for site in ("attention", "ffn")}
    )
    assert first.aux.keys() == second.aux.keys()


COMPILED = [("all", "eager")]
COMPILED += [pytest.param(name, "eager", marks=pytest.mark.slow) for name in VARIANTS if name != "all"]
COMPILED += [pytest.param(name, "aot_eager", marks=pytest.mark.slow) for name in ("memory", "linear", "all")]


@pytest.mark.parametrize(("name", "backend"), COMPILED)
def test_it_compiles_as_one_graph(name, backend):
    net, tokens = make_tiny_decoder(gain=4.0, **VARIANTS[name]).train(), make_random_tokens(2, 9)
    torch._dynamo.reset()
    compiled = torch.compile(net, fullgraph=True, backend=backend)
    out, expected = compiled(tokens, trace=True), net(tokens, trace=True)
    assert torch.allclose(out.logits, expected.logits, atol=1e-5)
    assert out.aux.keys() == expected.aux.keys()
    for key, value in expected.aux.items():
        assert torch.allclose(out.aux[key], value, atol=1e-6)


def test_loss_terms_carry_the_name_of_their_site_and_reach_the_weights():
    net, tokens = make_tiny_decoder(ffn=RoutedFFN), make_random_tokens(2, 6)
    out = net(tokens)
    assert list(out.aux) == ["0/ffn/balance", "1/ffn/balance", "2/ffn/balance"]
    sum(out.aux.values()).backward()
    assert all(block.ffn.router.weight.grad.abs().sum() > 0 for block in net.blocks)


def test_a_component_owns_the_start_of_its_weights():
    torch.manual_seed(0)
    net = make_decoder(Shape(dim=64, depth=8, heads=4, hidden=256), ffn=RoutedFFN)
    ffn = net.blocks[3].ffn
    assert ffn.router.weight.abs().max() == 0
    assert torch.equal(ffn.router.bias, torch.full((2,), -4.0))
    assert ffn.experts[0].gate_up.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert ffn.experts[0].down.weight.std().item() == pytest.approx(0.01 / 4, rel=0.05)
    assert net.blocks[3].attention.qkv.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert net.blocks[3].attention.out.weight.std().item() == pytest.approx(0.02 / 4, rel=0.05)


@pytest.mark.parametrize("pieces", [[7], [3, 1, 1, 2], [1] * 7], ids=str)
def test_state_goes_on_from_piece_to_piece(pieces):
    net, tokens = make_tiny_decoder(attention=RunningMean), make_random_tokens(2, 7)
    with torch.no_grad():
        assert torch.allclose(decode_in_chunks(net, tokens, pieces), net(tokens).logits, atol=1e-5)


def test_a_block_may_have_three_sites_and_keys_from_elsewhere():
    net = make_tiny_decoder(cross=CrossAttention)
    tokens, states = make_random_tokens(2, 5), torch.randn(2, 9, SHAPE.dim, generator=torch.Generator().manual_seed(0))
    out = net(tokens, source=KeySource(states), trace=True)
    assert list(out.traces)[:3] == ["0/attention", "0/ffn", "0/cross"]
    other = net(tokens, source=KeySource(states.roll(1, -1)))
    assert not torch.allclose(out.logits, other.logits)


def test_hidden_states_and_head_are_the_logits_in_pieces():
    net, tokens = make_tiny_decoder(), make_random_tokens(2, 8)
    out, states = net(tokens), net.hidden(tokens)
    assert torch.equal(out.hidden, states.hidden)
    parts = [net.head(part) for part in states.hidden.split(3, dim=1)]
    assert torch.allclose(torch.cat(parts, 1), out.logits, atol=1e-6)


def test_embeds_stand_in_for_tokens():
    net, tokens = make_tiny_decoder(), make_random_tokens(2, 8)
    assert torch.equal(net(embeds=net.embed(tokens)).logits, net(tokens).logits)
    for given, message in (
        ({}, "give either tokens or embeds"),
        ({"tokens": tokens, "embeds": net.embed(tokens)}, "give either tokens or embeds"),
        ({"embeds": torch.zeros(2, 8, 5)}, r"embeds have sizes \[2, 8, 5\], and the model takes \[B, T, 32\]"),
    ):
        with pytest.raises(AptlabError, match=message):
            net(**given)


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("packed", [False, True], ids=["one", "packed"])
def test_attention_in_both_directions_is_the_dense_softmax(window, packed):
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, heads, 10, 8, generator=generator, dtype=torch.float64) for heads in (4, 2, 2))
    segments = torch.tensor([[1] * 4 + [2] * 6]) if packed else None
    context = ForwardContext(10, segments=segments, causal=False)
    got = compute_attention(Heads(q, k, v), context, AttentionSpec(scale=0.3, window=window))
    distance = (torch.arange(10).unsqueeze(1) - torch.arange(10)).abs()
    sees = torch.ones(10, 10, dtype=torch.bool) if window is None else distance < window
    if segments is not None:
        sees = sees & (segments[0].unsqueeze(1) == segments[0])
    keys, values = (x.repeat_interleave(2, dim=1) for x in (k, v))
    scores = (0.3 * q @ keys.mT).masked_fill(~sees, -torch.inf)
    assert torch.allclose(got, scores.softmax(-1) @ values, atol=1e-12)


def test_what_reads_from_left_to_right_says_so():
    x = torch.randn(1, 4, SHAPE.dim)
    with pytest.raises(AptlabError, match="reads from left to right, and this pass is not causal; use attention=full"):
        LinearAttention(SHAPE, layer=0)(x, ForwardContext(4, causal=False))
    net = make_tiny_decoder(rope=XPos())
    with pytest.raises(AptlabError, match="looks at earlier tokens only, and this pass is not causal"):
        net.blocks[0].attention(x, ForwardContext(4, causal=False))
    with pytest.raises(AptlabError, match="a cache holds earlier tokens, and this pass is not causal"):
        ForwardContext(4, cache=make_tiny_decoder().new_cache(1, 4), causal=False)


class Loose(nn.Module):
    """Has the names and not the contract."""

    def __init__(self, *args: object, **rest: object) -> None:
        super().__init__()


class Unfinished(Attention):
    """Says nothing of its keys and FLOPs."""

    def __init__(self, shape: Shape, *, layer: int) -> None:
        super().__init__()

    def forward(self, x_BTC: Tensor, context: ForwardContext) -> Tensor:
        return x_BTC


@pytest.mark.parametrize(
    ("parts", "error", "message"),
    [
        (
            {"ffn": Loose},
            ConfigError,
            r"Loose at the site ffn is no Layer; derive it from aptlab\.nn\.layer",
        ),
        ({"smooth": Loose}, ConfigError, r"Loose at the site attention is no Smooth; derive it from .*write: forward"),
        ({"attention": Unfinished}, TypeError, "abstract methods? '?count_flops'?.*max_keys"),
    ],
)
def test_what_a_contract_demands_is_checked_when_a_model_is_built(parts, error, message):
    with pytest.raises(error, match=message):
        make_decoder(SHAPE, **parts)


def test_a_site_without_a_smoothing_of_its_own_keeps_the_plain_residual():
    class Doubled(Smooth):
        """u + 2 delta, to see that the rule is used."""

        def __init__(self, dim: int, *, layer: int, site: str) -> None:
            super().__init__()

        def forward(self, u_BTC: Tensor, delta_BTC: Tensor, context: ForwardContext) -> Tensor:
            return u_BTC + 2 * delta_BTC

    tokens = make_random_tokens(1, 5)
    plain, doubled = (make_tiny_decoder(smooth=rule)(tokens).logits for rule in (Plain, Doubled))
    assert not torch.allclose(plain, doubled)
