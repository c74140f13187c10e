"""Laws of biases of attention scores. Legend: B batch, H heads, T queries, S keys, D head dim."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from aptlab.nn.positions.rope import NoRope
from aptlab.testing.contract import Contract, assert_close, assert_equal
from aptlab.testing.tiny import decode_in_chunks, make_random_tokens, make_tiny_decoder

HEADS, HEAD_DIM, TOKENS = 4, 8, 12
SHIFTS = (1, 4, 977, 131_072, 9_999_000)


class BiasContract(Contract):
    """Laws of one bias: override `factory`, called as `factory(heads=, head_dim=, layer=)`.

    `relative = True` on the module promises that a joint shift of queries and keys changes nothing: measured here.
    """

    factory: Callable[..., nn.Module]

    def test_it_has_a_float32_value_for_every_head_query_and_key(self) -> None:
        bias, case = make_seeded_bias(self.factory), BiasCase(2)
        out = case.added(bias)
        assert out.dtype == torch.float32, f"the bias is {out.dtype}, must be float32"
        assert out.shape[0] in (1, 2), f"the bias has {out.shape[0]} rows, must be 1 or B=2"
        assert out.shape[1:] == (HEADS, TOKENS, TOKENS), f"the bias has sizes {list(out.shape)}, wants [.., H, T, S]"

    def test_relative_flag_is_what_is_measured(self) -> None:
        bias: Any = make_seeded_bias(self.factory)
        base = BiasCase(1).added(bias)
        change = max((BiasCase(1, shift=shift).added(bias) - base).abs().max().item() for shift in SHIFTS)
        if bias.relative:
            assert change < 1e-6, f"relative=True, and a joint shift changes the bias by {change:.3g}"
        else:
            assert change > 1e-3, f"relative=False, and no joint shift changes the bias ({change:.3g})"

    def test_a_later_key_changes_nothing(self) -> None:
        bias, case, later = make_seeded_bias(self.factory), BiasCase(1), BiasCase(1)
        later.keys = case.keys + torch.tensor([0] * 8 + [5] * 4)
        later.k = case.k.clone()
        later.k[:, :, 8:] += 3.0
        out, changed = case.seen(bias), later.seen(bias)
        assert_close(changed[:, :, :8], out[:, :, :8], "a later key changes nothing", atol=0.0)

    def test_a_row_does_not_see_its_batch(self) -> None:
        bias, case = make_seeded_bias(self.factory), BiasCase(3)
        together = case.added(bias).expand(3, -1, -1, -1)
        for row in range(3):
            alone = case.rows(slice(row, row + 1)).added(bias)
            assert_close(alone, together[row : row + 1], f"row {row} alone == in the batch", atol=1e-6)

    def test_queries_may_be_the_last_tokens_alone(self) -> None:
        bias, case = make_seeded_bias(self.factory), BiasCase(2)
        whole = case.seen(bias)
        for begin in (TOKENS - 1, 5):
            assert_close(case.queries_from(begin).seen(bias), whole[:, :, begin:], "cached == full", atol=1e-6)

    def test_a_packed_document_has_the_bias_it_has_alone(self) -> None:
        bias, case = make_seeded_bias(self.factory), BiasCase(1)
        begin = 7
        packed = BiasCase(1)
        packed.queries = packed.keys = torch.cat((torch.arange(begin), torch.arange(TOKENS - begin))).unsqueeze(0)
        document = torch.arange(TOKENS) >= begin
        packed.allowed = case.allowed & (document.unsqueeze(1) == document)
        alone = BiasCase(1).tokens_from(begin)
        alone.queries = alone.keys = torch.arange(TOKENS - begin).unsqueeze(0)
        assert_close(packed.seen(bias)[:, :, begin:, begin:], alone.seen(bias), "packed == separate", atol=1e-6)

    def test_it_is_finite_ten_million_tokens_away(self) -> None:
        case = BiasCase(1)
        case.queries = torch.arange(TOKENS).unsqueeze(0) + 10_000_000
        assert bool(case.added(make_seeded_bias(self.factory)).isfinite().all()), (
            "a value is not finite at distance 10,000,000"
        )

    def test_every_weight_gets_a_finite_gradient(self) -> None:
        bias, case = make_seeded_bias(self.factory), BiasCase(1)
        if not list(bias.parameters()):
            return
        case.queries = case.queries + torch.tensor([0] * 6 + [1_000_000] * 6)
        case.seen(bias).square().sum().backward()
        for name, weight in bias.named_parameters():
            assert weight.grad is not None, f"{name} gets no gradient"
            assert bool(weight.grad.isfinite().all()), f"the gradient of {name} is not finite"
            assert bool(weight.grad.any()), f"the gradient of {name} is zero"

    def test_casting_the_model_keeps_float32_inside(self) -> None:
        bias, case = make_seeded_bias(self.factory), BiasCase(1)
        cast = copy.deepcopy(bias).bfloat16()
        for name, tensor in bias.named_buffers():
            assert_equal(cast.get_buffer(name), tensor, f"buffer {name} after .bfloat16()")
        rounded = copy.deepcopy(bias)
        for weight in rounded.parameters():
            weight.data = weight.data.bfloat16().float()
        assert_equal(case.added(cast), case.added(rounded), "a bias with bfloat16 weights")

    def test_flex_attention_adds_the_same(self) -> None:
        from torch.nn.attention.flex_attention import flex_attention

        bias, case = make_seeded_bias(self.factory), BiasCase(2)
        if bias.contextual:
            return
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that eager flex_attention is slow
            mod: Any = bias.score_mod(case.queries, case.keys)  # type: ignore[operator]
            got = flex_attention(case.q, case.k, case.v, score_mod=mod, scale=1.0)
            expected = torch.softmax(case.q @ case.k.mT + case.added(bias), -1) @ case.v
        assert_close(got, expected, "score_mod == the dense bias", atol=1e-5)  # type: ignore[arg-type]

    def test_it_compiles_as_one_graph(self) -> None:
        bias, case = make_seeded_bias(self.factory), BiasCase(1)
        torch._dynamo.reset()
        compiled: Any = torch.compile(bias, fullgraph=True, backend="aot_eager")
        assert_close(case.added(compiled, bias), case.added(bias), "compiled == eager", atol=1e-6)

    def test_cached_decoding_is_the_full_forward(self) -> None:
        net, tokens = self._net(), make_random_tokens(2, 20)
        with torch.no_grad():
            assert_close(decode_in_chunks(net, tokens, [6, 1]), net(tokens).logits, "cached == full", atol=2e-5)

    def test_left_padding_changes_nothing(self) -> None:
        net, tokens = self._net(), make_random_tokens(1, 16)
        padded = torch.cat((torch.zeros(1, 5, dtype=torch.long), tokens), dim=1)
        segments = (torch.arange(21) >= 5).long().unsqueeze(0)
        positions = (torch.arange(21) - 5).clamp_min(0).unsqueeze(0)
        with torch.no_grad():
            got = net(padded, segments=segments, positions=positions).logits[:, 5:]
            assert_close(got, net(tokens).logits, "left padding == none", atol=2e-5)

    def test_packed_documents_are_those_alone(self) -> None:
        net, first, second = self._net(), make_random_tokens(1, 9), make_random_tokens(1, 14, seed=1)
        segments = torch.tensor([[1] * 9 + [2] * 14])
        positions = torch.cat((torch.arange(9), torch.arange(14))).unsqueeze(0)
        with torch.no_grad():
            got = net(torch.cat((first, second), 1), segments=segments, positions=positions).logits
            expected = torch.cat((net(first).logits, net(second).logits), 1)
            assert_close(got, expected, "packed == separate", atol=2e-5)

    def _net(self) -> Any:
        return make_tiny_decoder(rope=NoRope(), bias=self.factory)


class BiasCase:
    """Seeded queries, keys and values [B, H, T, D] at positions 0, 1, 2, ... + shift, with the causal mask."""

    def __init__(self, batch: int, *, shift: int = 0) -> None:
        generator = torch.Generator().manual_seed(0)
        size = (batch, HEADS, TOKENS, HEAD_DIM)
        self.q, self.k, self.v = (torch.randn(size, generator=generator) for _ in range(3))
        steps = torch.tensor([[0, 3, 11][:batch]]).T  # rows begin at places of their own
        self.queries = self.keys = torch.arange(TOKENS).unsqueeze(0) + shift + steps
        self.allowed = torch.ones(TOKENS, TOKENS, dtype=torch.bool).tril().view(1, 1, TOKENS, TOKENS)

    def added(self, bias: nn.Module, owner: Any = None) -> Tensor:
        """The bias of this case; `owner` says what kind it is where `bias` is a wrapper."""
        contextual = (owner or bias).contextual
        return bias(self.q, self.k, self.allowed) if contextual else bias(self.queries, self.keys)

    def seen(self, bias: nn.Module) -> Tensor:
        """The bias where a query sees a key, 0 elsewhere."""
        return torch.where(self.allowed, self.added(bias), 0.0)

    def rows(self, rows: slice) -> BiasCase:
        case = copy.copy(self)
        case.q, case.k, case.v = self.q[rows], self.k[rows], self.v[rows]
        case.queries, case.keys = self.queries[rows], self.keys[rows]
        return case

    def queries_from(self, begin: int) -> BiasCase:
        """The same keys, met by the queries from `begin` on."""
        case = copy.copy(self)
        case.q, case.queries = self.q[:, :, begin:], self.queries[:, begin:]
        case.allowed = self.allowed[:, :, begin:]
        return case

    def tokens_from(self, begin: int) -> BiasCase:
        """Queries and keys from `begin` on."""
        case = self.queries_from(begin)
        case.k, case.v, case.keys = self.k[:, :, begin:], self.v[:, :, begin:], self.keys[:, begin:]
        case.allowed = case.allowed[..., begin:]
        return case


def make_seeded_bias(factory: Callable[..., nn.Module]) -> Any:
    """A seeded module whose weights are far from zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        bias = factory(heads=HEADS, head_dim=HEAD_DIM, layer=0)
        for weight in bias.parameters():
            nn.init.normal_(weight, std=0.5)
    return bias.eval()
