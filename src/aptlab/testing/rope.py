"""Laws of rotary rules. Legend: T tokens, D head dim, P = D/2 pairs."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
import pickle
from typing import Any

import torch
from torch import Tensor

from aptlab.nn.rope import Rope
from aptlab.nn.rotary import RotaryEmbedding
from aptlab.testing.contract import Contract, close, same
from aptlab.testing.tiny import decode, random_tokens, tiny_decoder

HEAD_DIMS = (4, 64, 128)
SHIFTS = (1, 4, 977, 131_072, 9_999_000)


class RopeContract(Contract):
    """Laws of one rotary rule: override `rule`, and `head_dims` if it cannot have 4, 64 and 128.

    `relative = True` promises that logits do not change when queries and keys are shifted together: measured here.
    """

    rule: Rope
    head_dims: tuple[int, ...] = HEAD_DIMS

    def test_frequencies_are_finite_positive_and_fastest_first(self) -> None:
        for head_dim in self.head_dims:
            freq = self.rule.inv_freq(head_dim)
            where = f"inv_freq({head_dim})"
            assert len(freq) == head_dim // 2, f"{where} has {len(freq)} values, {head_dim // 2} pairs need one each"
            assert all(type(f) is float for f in freq), f"{where} must hold Python floats (float64)"
            assert all(0 < f < math.inf for f in freq), f"{where} must be finite and positive: {freq}"
            assert all(a >= b for a, b in itertools.pairwise(freq)), f"{where} must not increase: {freq}"

    def test_frequencies_depend_on_the_head_dim_alone(self) -> None:
        first = {head_dim: self.rule.inv_freq(head_dim) for head_dim in self.head_dims}
        again = {head_dim: self.rule.inv_freq(head_dim) for head_dim in reversed(self.head_dims)}
        assert first == again, "inv_freq gave other values when asked again; a rule has no state"

    def test_temperature_is_a_positive_number(self) -> None:
        value = self.rule.temperature
        assert 0 < value < math.inf, f"temperature={value} must be finite and positive"

    def test_relative_flag_is_what_is_measured(self) -> None:
        for head_dim in self.head_dims:
            change = shift_change(self.rule, head_dim)
            if self.rule.relative:
                assert change < 1e-6, f"relative=True, and a joint shift changes logits by {change:.3g} (D={head_dim})"
            else:
                assert change > 1e-3, f"relative=False, and no joint shift changes logits ({change:.3g}, D={head_dim})"

    def test_rotation_keeps_norms(self) -> None:
        for head_dim in self.head_dims:
            x, rotary = vectors(32, head_dim), RotaryEmbedding(self.rule, head_dim=head_dim)
            turned = rotary.rotate(x, rotary.angles(torch.arange(32).unsqueeze(0) * 400_009))
            close(turned.norm(dim=-1) / x.norm(dim=-1), torch.ones(1, 1, 32), "rotation keeps norms", atol=1e-6)

    def test_factor_one_is_the_standard_rule(self) -> None:
        fields = {field.name for field in dataclasses.fields(self.rule)}  # type: ignore[arg-type]
        if not {"factor", "base"} <= fields:
            return
        rule: Any = dataclasses.replace(self.rule, factor=1.0)  # type: ignore[type-var]
        for head_dim in self.head_dims:
            for i, got in enumerate(rule.inv_freq(head_dim)):
                wanted = rule.base ** (-2 * i / head_dim)
                assert math.isclose(got, wanted, rel_tol=1e-12), f"factor=1: pair {i} has {got}, standard is {wanted}"
        assert rule.temperature == 1.0, f"factor=1: temperature is {rule.temperature}, should be 1"

    def test_it_is_a_frozen_hashable_value(self) -> None:
        rule: Any = self.rule
        twin = pickle.loads(pickle.dumps(rule))
        assert twin == rule, "a pickled copy must be equal"
        assert hash(twin) == hash(rule), "a pickled copy must have the same hash"
        assert copy.deepcopy(rule) == rule, "a deep copy must be equal"
        settings = getattr(rule, "__dataclass_params__", None)
        assert settings is not None, "a rule is a dataclass"
        assert settings.frozen, "a rule is frozen: @dataclass(frozen=True, kw_only=True)"

    def test_cached_decoding_is_the_full_forward(self) -> None:
        net, tokens = tiny_decoder(rope=self.rule), random_tokens(2, 24)
        with torch.no_grad():
            close(decode(net, tokens, [7, 1]), net(tokens).logits, "cached == full", atol=2e-5)

    def test_casting_the_model_keeps_float32_tables(self) -> None:
        net = tiny_decoder(rope=self.rule)
        before = {name: table.clone() for name, table in net.rotaries.named_buffers()}
        assert before, "the decoder has no rotary tables"
        for name, table in copy.deepcopy(net).bfloat16().rotaries.named_buffers():
            same(table, before[name], f"{name} after .bfloat16()")

    def test_config_builds_an_equal_rule(self) -> None:
        if self.config is not None:
            from aptlab.config import build

            assert build(self.config) == self.rule, f"the config builds {build(self.config)}, not {self.rule}"


def vectors(tokens: int, head_dim: int, seed: int = 0) -> Tensor:
    """Seeded normal vectors, float64 [1, 1, T, D]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, 1, tokens, head_dim, generator=generator, dtype=torch.float64)


def shift_change(rule: Rope, head_dim: int, *, tokens: int = 24) -> float:
    """Largest change of a logit q·k / sqrt(D), over joint shifts of up to ten million positions."""
    rotary = RotaryEmbedding(rule, head_dim=head_dim)
    q, k = vectors(tokens, head_dim, 1), vectors(tokens, head_dim, 2)
    places = torch.arange(tokens).unsqueeze(0)

    def logits(shift: int) -> Tensor:
        angles = rotary.angles(places + shift)
        return rotary.rotate(q, angles) @ rotary.rotate(k, angles).transpose(-1, -2) / math.sqrt(head_dim)

    return max((logits(shift) - logits(0)).abs().max().item() for shift in SHIFTS)
