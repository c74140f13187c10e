"""Laws of smoothing layers. Legend: B batch, T tokens, C dim."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from aptlab.models import Decoder
from aptlab.nn.context import ForwardContext
from aptlab.nn.smooth import Plain, SiteInfo, Smooth
from aptlab.testing.contract import Contract, assert_close, assert_equal
from aptlab.testing.tiny import decode_in_chunks, make_random_tokens, make_tiny_decoder

DIM = 16


class SmoothContract(Contract):
    """Laws of one smoothing layer: override `factory`, called as `factory(dim, layer=i, site="attention" | "ffn")`.

    factory            a class or a functools.partial (a plain function needs `staticmethod`)
    plain_limit        the factory with the values that should make it u + delta, or None where there are none
    info               where it stands; a rule that goes by depth or by norms is told this
    keeps_direction    whether it promises that u' - u points where delta does
    passes_small_steps whether it promises that a small step of the first block is added whole
    """

    factory: Callable[..., nn.Module]
    plain_limit: Callable[..., nn.Module] | None = None
    info: SiteInfo = SiteInfo(depth=3)
    keeps_direction: bool = False
    passes_small_steps: bool = False

    def site(self, layer: int = 0) -> Smooth:
        """One site of the first chain, that knows where it stands."""
        return make_site(self.factory, self.info, layer)

    def net(self, factory: Callable[..., nn.Module] | None = None) -> Decoder:
        """A small decoder with the rule at every site."""
        return make_tiny_decoder(smooth=factory or self.factory, post_norm=self.info.norm_joined)

    def chain(self, u: Tensor, delta: Tensor) -> Tensor:
        """The stream after three sites."""
        return chain_sites(self.factory, u, delta, info=self.info)

    def test_shape_and_dtype_are_kept(self) -> None:
        for dtype in (torch.float32, torch.bfloat16, torch.float64):
            u, delta = (x.to(dtype) for x in make_seeded_steps(2, 5))
            out = self.chain(u, delta)
            assert out.shape == u.shape, f"out has sizes {list(out.shape)}, u has {list(u.shape)}"
            assert out.dtype == dtype, f"out is {out.dtype}, u is {dtype}"

    def test_zeros_are_finite_forward_and_backward(self) -> None:
        u, delta = make_seeded_steps(2, 5)
        for first, second in ((u * 0, delta * 0), (u, delta * 0), (u * 0, delta)):
            first, second = first.clone().requires_grad_(), second.clone().requires_grad_()
            out = self.chain(first, second)
            out.sum().backward()
            for name, value in (("out", out), ("gradient of u", first.grad), ("gradient of delta", second.grad)):
                finite = bool(torch.zeros(()) if value is None else value.isfinite().all())
                assert finite, f"{name} is not finite where inputs are zero"

    def test_a_zero_stream_is_finite_in_half_precision(self) -> None:
        for dtype in (torch.float16, torch.bfloat16):
            u = torch.zeros(2, 3, DIM, dtype=dtype)
            for size in (0.0, 1.0, 30000.0):
                out, _, seen = join_once(self.site(), u, torch.full_like(u, size), trace=True)
                for name, value in {"out": out, **(seen or {})}.items():
                    assert value.isfinite().all(), f"{name} is not finite for a zero stream in {dtype}, delta={size:g}"

    def test_a_token_changes_nothing_before_it(self) -> None:
        u, delta = make_seeded_steps(2, 8)
        later_u, later_delta = u.clone(), delta.clone()
        later_u[:, 5:] *= 30.0
        later_delta[:, 5:] += 3.0
        out, changed = self.chain(u, delta), self.chain(later_u, later_delta)
        assert_close(changed[:, :5], out[:, :5], "causal over tokens", atol=1e-6)
        assert not torch.equal(changed[:, 5:], out[:, 5:]), "the layer ignores its input"

    def test_a_row_does_not_see_its_batch(self) -> None:
        u, delta = make_seeded_steps(3, 6)
        together = self.chain(u, delta)
        for row in range(3):
            alone = self.chain(u[row : row + 1], delta[row : row + 1])
            assert_close(alone, together[row : row + 1], f"row {row} alone == in the batch", atol=1e-6)

    def test_tokens_in_another_order_give_the_same(self) -> None:
        u, delta = make_seeded_steps(2, 6)
        rows, tokens = torch.tensor([1, 0]), torch.tensor([3, 0, 5, 4, 1, 2])
        mixed = self.chain(u[rows][:, tokens], delta[rows][:, tokens])
        assert_close(mixed, self.chain(u, delta)[rows][:, tokens], "permuted tokens", atol=1e-6)

    def test_cached_decoding_is_the_full_forward(self) -> None:
        net, tokens = self.net(), make_random_tokens(2, 20)
        with torch.no_grad():
            assert_close(decode_in_chunks(net, tokens, [6, 1]), net(tokens).logits, "cached == full", atol=2e-5)

    def test_packed_documents_are_the_same_as_separate_ones(self) -> None:
        net, tokens = self.net(), make_random_tokens(1, 12)
        segments = torch.tensor([[1] * 5 + [2] * 7])
        positions = torch.cat((torch.arange(5), torch.arange(7))).unsqueeze(0)
        with torch.no_grad():
            packed = net(tokens, positions=positions, segments=segments).logits
            alone = torch.cat((net(tokens[:, :5]).logits, net(tokens[:, 5:]).logits), dim=1)
        assert_close(packed, alone, "packed == alone", atol=2e-5)

    def test_forward_changes_no_state(self) -> None:
        for training in (True, False):
            layer = self.site().train(training)
            before = copy.deepcopy(dict(layer.named_buffers()))
            u, delta = make_seeded_steps(2, 5)
            first, _, _ = join_once(layer, u, delta, trace=True)
            second, _, _ = join_once(layer, u, delta)
            assert_equal(second, first, f"the same input twice (training={training}, with and without trace)")
            for name, value in layer.named_buffers():
                assert_equal(value, before[name], f"buffer {name} after forward (training={training})")

    def test_an_inf_leaves_nothing_behind(self) -> None:
        layer = self.site().train()
        u, delta = make_seeded_steps(2, 5)
        clean, _, _ = join_once(layer, u, delta)
        for value in (math.inf, math.nan):
            spoilt = delta.clone()
            spoilt[0, 1, 0] = value
            out, _, _ = join_once(layer, u, spoilt)
            others = torch.ones(2, 5, dtype=torch.bool)
            others[0, 1] = False
            assert_equal(out[others], clean[others], f"the other tokens beside one of {value}")
            assert_equal(join_once(layer, u, delta)[0], clean, f"clean input after {value}")

    def test_statistics_are_detached_scalars_and_come_when_asked(self) -> None:
        layer = self.site().eval()
        u, delta = make_seeded_steps(2, 5)
        out, _, seen = join_once(layer, u.requires_grad_(), delta.requires_grad_(), trace=True)
        assert join_once(layer, u, delta)[2] is None, "statistics that nobody asked for, in evaluation"
        for name, value in (seen or {}).items():
            assert value.shape == (), f"{name} has sizes {list(value.shape)}"
            assert not value.requires_grad, f"{name} holds a graph"
        if seen and "peak" in seen:
            assert_close(seen["peak"], out.abs().amax().detach(), "peak == max |u'|", atol=1e-6)

    def test_autocast_does_not_lower_the_precision(self) -> None:
        layer, (u, delta) = self.site().eval(), make_seeded_steps(2, 5)
        plain, _, _ = join_once(layer, u, delta)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert_equal(join_once(layer, u, delta)[0], plain, "under autocast")

    def test_recomputation_gives_the_same_gradients(self) -> None:
        tokens = make_random_tokens(2, 12)
        plain, again = (self.net().train() for _ in range(2))
        plain(tokens).logits.logsumexp(-1).sum().backward()
        out: Any = checkpoint(lambda ids: again(ids).logits, tokens, use_reentrant=False)
        out.logsumexp(-1).sum().backward()
        for (name, weight), (_, twin) in zip(plain.named_parameters(), again.named_parameters(), strict=True):
            got, expected = (torch.zeros(()) if grad is None else grad for grad in (twin.grad, weight.grad))
            assert_equal(got, expected, f"gradient of {name} with activation checkpointing")

    def test_plain_limit_is_the_plain_residual(self) -> None:
        if self.plain_limit is None:
            return
        tokens = make_random_tokens(2, 12)
        with torch.no_grad():
            limit, plain = self.net(self.plain_limit)(tokens).logits, self.net(Plain)(tokens).logits
        assert_close(limit, plain, "the plain limit == u + delta", atol=1e-6)

    def test_a_promised_direction_is_kept(self) -> None:
        if not self.keeps_direction:
            return
        u, delta = (x.double() for x in make_seeded_steps(2, 40))
        moved = join_once(self.site().double().eval(), u, delta)[0] - u
        assert_close(F.cosine_similarity(moved, delta, dim=-1), torch.ones(2, 40).double(), "direction", atol=1e-6)

    def test_small_steps_pass_whole_where_that_is_promised(self) -> None:
        if not self.passes_small_steps:
            return
        u, delta = make_seeded_steps(2, 5)
        out = join_once(self.site().eval(), u, 1e-6 * delta)[0]
        assert_equal(out, u + 1e-6 * delta, "a small step of the first block")

    def test_it_compiles_as_one_graph(self) -> None:
        layer, (u, delta) = self.site().eval(), make_seeded_steps(2, 5)
        carry = join_once(layer, u, delta)[1]
        for backend, given, trace in (("aot_eager", None, False), ("eager", carry, True)):
            torch._dynamo.reset()
            compiled = torch.compile(layer, fullgraph=True, backend=backend)
            got = join_once(compiled, u, delta, given, trace=trace)
            expected = join_once(layer, u, delta, given, trace=trace)
            assert_close(got[0], expected[0], "compiled == eager", atol=1e-6)
            assert (got[2] or {}).keys() == (expected[2] or {}).keys(), "compiled statistics have other names"


def make_seeded_steps(batch: int, tokens: int) -> tuple[Tensor, Tensor]:
    """Seeded streams and deltas, float32 [B, T, C], with sizes per token from small to large."""
    generator = torch.Generator().manual_seed(0)
    u, delta = (torch.randn(batch, tokens, DIM, generator=generator) for _ in range(2))
    return u, delta * torch.linspace(0.05, 3.0, tokens).view(1, -1, 1)


def make_site(factory: Callable[..., Any], info: SiteInfo, layer: int = 0, *, dim: int = DIM) -> Any:
    """One attention site that knows where it stands."""
    site = factory(dim, layer=layer, site="attention")
    site.bind_site(info)
    return site


def chain_sites(
    factory: Callable[..., nn.Module], u: Tensor, delta: Tensor, depth: int = 3, info: SiteInfo | None = None
) -> Tensor:
    """The stream after `depth` sites in eval mode, each joining a turned `delta` and given the last one's carry."""
    carry, info = None, info or SiteInfo(depth=depth)
    for layer in range(depth):
        site = make_site(factory, info, layer, dim=u.shape[-1]).eval()
        u, carry, _ = join_once(site, u, delta.roll(layer, dims=-1), carry)
    return u


def join_once(
    smooth: Callable[..., Tensor], u: Tensor, delta: Tensor, carry: Any = None, *, trace: bool = False
) -> tuple[Tensor, Any, dict[str, Tensor] | None]:
    """The stream after one join, what it hands on, and its statistics."""
    context = ForwardContext(u.shape[1], tracing=trace)
    context.enter_site("0/attention", carry)
    out = smooth(u, delta, context)
    return out, context.next_carry, context.traces.get("0/attention")
