"""Laws of smoothing layers. Legend: B batch, T tokens, C dim."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from aptlab.nn.context import ForwardContext
from aptlab.nn.smooth import Plain
from aptlab.testing.contract import Contract, assert_close, assert_equal
from aptlab.testing.tiny import decode_in_chunks, make_random_tokens, make_tiny_decoder

DIM = 16


class SmoothContract(Contract):
    """Laws of one smoothing layer: override `factory`, called as `factory(dim, layer=i, site="attention" | "ffn")`.

    factory      a class or a functools.partial (a plain function needs `staticmethod`)
    plain_limit  the factory with the values that should make it u + delta, or None where there are none
    """

    factory: Callable[..., nn.Module]
    plain_limit: Callable[..., nn.Module] | None = None

    def test_shape_and_dtype_are_kept(self) -> None:
        for dtype in (torch.float32, torch.bfloat16, torch.float64):
            u, delta = (x.to(dtype) for x in make_seeded_steps(2, 5))
            out = chain_sites(self.factory, u, delta)
            assert out.shape == u.shape, f"out has sizes {list(out.shape)}, u has {list(u.shape)}"
            assert out.dtype == dtype, f"out is {out.dtype}, u is {dtype}"

    def test_zeros_are_finite_forward_and_backward(self) -> None:
        u, delta = make_seeded_steps(2, 5)
        for first, second in ((u * 0, delta * 0), (u, delta * 0), (u * 0, delta)):
            first, second = first.clone().requires_grad_(), second.clone().requires_grad_()
            out = chain_sites(self.factory, first, second)
            out.sum().backward()
            for name, value in (("out", out), ("gradient of u", first.grad), ("gradient of delta", second.grad)):
                finite = bool(torch.zeros(()) if value is None else value.isfinite().all())
                assert finite, f"{name} is not finite where inputs are zero"

    def test_a_token_changes_nothing_before_it(self) -> None:
        u, delta = make_seeded_steps(2, 8)
        later_u, later_delta = u.clone(), delta.clone()
        later_u[:, 5:] *= 30.0
        later_delta[:, 5:] += 3.0
        out, changed = chain_sites(self.factory, u, delta), chain_sites(self.factory, later_u, later_delta)
        assert_close(changed[:, :5], out[:, :5], "causal over tokens", atol=1e-6)
        assert not torch.equal(changed[:, 5:], out[:, 5:]), "the layer ignores its input"

    def test_a_row_does_not_see_its_batch(self) -> None:
        u, delta = make_seeded_steps(3, 6)
        together = chain_sites(self.factory, u, delta)
        for row in range(3):
            alone = chain_sites(self.factory, u[row : row + 1], delta[row : row + 1])
            assert_close(alone, together[row : row + 1], f"row {row} alone == in the batch", atol=1e-6)

    def test_cached_decoding_is_the_full_forward(self) -> None:
        net, tokens = make_tiny_decoder(smooth=self.factory), make_random_tokens(2, 20)
        with torch.no_grad():
            assert_close(decode_in_chunks(net, tokens, [6, 1]), net(tokens).logits, "cached == full", atol=2e-5)

    def test_forward_changes_no_state(self) -> None:
        for training in (True, False):
            layer = self.factory(DIM, layer=0, site="ffn").train(training)
            before = copy.deepcopy(dict(layer.named_buffers()))
            u, delta = make_seeded_steps(2, 5)
            first, _, _ = join_once(layer, u, delta, trace=True)
            second, _, _ = join_once(layer, u, delta)
            assert_equal(second, first, f"the same input twice (training={training}, with and without trace)")
            for name, value in layer.named_buffers():
                assert_equal(value, before[name], f"buffer {name} after forward (training={training})")

    def test_recomputation_gives_the_same_gradients(self) -> None:
        tokens = make_random_tokens(2, 12)
        plain, again = (make_tiny_decoder(smooth=self.factory).train() for _ in range(2))
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
            limit = make_tiny_decoder(smooth=self.plain_limit)(tokens).logits
            assert_close(
                limit, make_tiny_decoder(smooth=Plain)(tokens).logits, "the plain limit == u + delta", atol=1e-6
            )

    def test_it_compiles_as_one_graph(self) -> None:
        layer = self.factory(DIM, layer=0, site="attention").eval()
        u, delta = make_seeded_steps(2, 5)
        torch._dynamo.reset()
        compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
        assert_close(join_once(compiled, u, delta)[0], join_once(layer, u, delta)[0], "compiled == eager", atol=1e-6)


def make_seeded_steps(batch: int, tokens: int) -> tuple[Tensor, Tensor]:
    """Seeded streams and deltas, float32 [B, T, C], with sizes per token from small to large."""
    generator = torch.Generator().manual_seed(0)
    u, delta = (torch.randn(batch, tokens, DIM, generator=generator) for _ in range(2))
    return u, delta * torch.linspace(0.05, 3.0, tokens).view(1, -1, 1)


def chain_sites(factory: Callable[..., nn.Module], u: Tensor, delta: Tensor, depth: int = 3) -> Tensor:
    """The stream after `depth` sites in eval mode, each joining a turned `delta` and given the last one's carry."""
    carry = None
    for layer in range(depth):
        site = factory(u.shape[-1], layer=layer, site="attention").eval()
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
