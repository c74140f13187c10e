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

from aptlab.nn.attention import FullAttention
from aptlab.nn.attention.dispatch import compute_attention
from aptlab.nn.attention.rotation import rotate_queries_keys
from aptlab.nn.attention.spec import Heads
from aptlab.nn.context import ForwardContext
from aptlab.nn.positions.layer import LayerPositions
from aptlab.nn.positions.rope import Rope
from aptlab.nn.shape import Shape
from aptlab.testing.contract import Contract, assert_close, assert_equal
from aptlab.testing.tiny import decode_in_chunks, make_random_tokens, make_tiny_decoder

HEAD_DIMS = (4, 64, 128)
SHIFTS = (1, 4, 977, 8_180, 131_072, 9_999_000)


class RopeContract(Contract):
    """Laws of one rotary rule: override `rule`, and `head_dims` if it cannot have 4, 64 and 128.

    `relative = True` promises that logits do not change when queries and keys are shifted together: measured here.
    """

    rule: Rope
    head_dims: tuple[int, ...] = HEAD_DIMS

    def test_frequencies_are_finite_positive_and_fastest_first(self) -> None:
        """Zero is allowed (a pair that never rotates); the order is asked of rules with a base and a factor only."""
        for head_dim in self.head_dims:
            for freq in self.rule.regimes(head_dim):
                where = f"inv_freq({head_dim})"
                most = head_dim // 2
                assert 0 < len(freq) <= most, f"{where} has {len(freq)} values, {most} pairs need one each at most"
                assert all(type(f) is float for f in freq), f"{where} must hold Python floats (float64)"
                assert all(0 <= f < math.inf for f in freq), f"{where} must be finite and not negative: {freq}"
                if self._fields() >= {"factor", "base"} and self.rule.combine(head_dim) is None:
                    assert all(a >= b for a, b in itertools.pairwise(freq)), f"{where} must not increase: {freq}"

    def _fields(self) -> set[str]:
        return {field.name for field in dataclasses.fields(self.rule)}  # type: ignore[arg-type]

    def test_frequencies_depend_on_the_head_dim_alone(self) -> None:
        first = {head_dim: self.rule.inv_freq(head_dim) for head_dim in self.head_dims}
        again = {head_dim: self.rule.inv_freq(head_dim) for head_dim in reversed(self.head_dims)}
        assert first == again, "inv_freq gave other values when asked again; a rule has no state"

    def test_temperature_is_a_positive_number(self) -> None:
        value = self.rule.temperature
        assert 0 < value < math.inf, f"temperature={value} must be finite and positive"

    def test_relative_flag_is_what_is_measured(self) -> None:
        for head_dim in self.head_dims:
            change = measure_shift_change(self.rule, head_dim)
            if self.rule.relative:
                assert change < 2e-6, (
                    f"relative=True, and a joint shift changes attention by {change:.3g} (D={head_dim})"
                )
            else:
                assert change > 1e-3, (
                    f"relative=False, and no joint shift changes attention ({change:.3g}, D={head_dim})"
                )

    def test_rotation_keeps_norms(self) -> None:
        for head_dim in self.head_dims:
            if self.rule.amplitude(head_dim) is not None or self.rule.temperature_on == "cos_sin":
                continue
            x, module = (
                make_vectors(6 * 32, head_dim).view(1, 6, 32, head_dim),
                make_layer_positions(self.rule, head_dim)[0].rotary,
            )
            if module is not None:
                rotated = module.rotate(x, module.angles(torch.arange(32).unsqueeze(0) * 400_009))
                ratio = rotated.norm(dim=-1) / x.norm(dim=-1)
                assert_close(ratio, torch.ones_like(ratio), "rotation keeps norms", atol=1e-6)

    def test_factor_one_is_the_standard_rule(self) -> None:
        if not self._fields() >= {"factor", "base"}:
            return
        plain = {"attention_factor": None} if "attention_factor" in self._fields() else {}
        rule: Any = dataclasses.replace(self.rule, factor=1.0, **plain)  # type: ignore[type-var]
        for head_dim in self.head_dims:
            frequencies = rule.inv_freq(head_dim)
            for i, got in enumerate(frequencies):
                expected = rule.base ** (-i / len(frequencies))  # over the dims that rotate
                close_enough = got == 0 or math.isclose(got, expected, rel_tol=1e-12)
                assert close_enough, f"factor=1: pair {i} has {got}, standard is {expected}"
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
        net, tokens = make_tiny_decoder(rope=self.rule), make_random_tokens(2, 24)
        with torch.no_grad():
            assert_close(decode_in_chunks(net, tokens, [7, 1]), net(tokens).logits, "cached == full", atol=2e-5)

    def test_casting_the_model_keeps_float32_tables(self) -> None:
        net = make_tiny_decoder(rope=self.rule)
        before = {name: table.clone() for name, table in net.rotaries.state_dict(keep_vars=True).items()}
        before |= {name: table.clone() for name, table in net.rotaries.named_buffers()}
        cast = copy.deepcopy(net).bfloat16().rotaries
        after = dict(cast.named_buffers()) | dict(cast.named_parameters())
        assert set(after) == set(before), f"casting changed {sorted(set(after) ^ set(before))}"
        for name, table in after.items():
            assert_equal(table, before[name], f"{name} after .bfloat16()")

    def test_config_builds_an_equal_rule(self) -> None:
        if self.config is not None:
            from aptlab.config import build

            assert build(self.config) == self.rule, f"the config builds {build(self.config)}, not {self.rule}"


def make_vectors(tokens: int, head_dim: int, seed: int = 0) -> Tensor:
    """Seeded normal vectors, float64 [1, 1, T, D]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, 1, tokens, head_dim, generator=generator, dtype=torch.float64)


def make_layer_positions(rule: Rope, head_dim: int) -> list[LayerPositions]:
    """What the rule makes of the first layers of a model with two key heads."""
    shape = Shape(dim=8, depth=4, heads=4, kv_heads=2, head_dim=head_dim, hidden=8)
    net = make_tiny_decoder(rope=rule, shape=shape)
    return [mixer.layer_positions for block in net.each_block() for _, mixer in block.mixers()]


def measure_shift_change(rule: Rope, head_dim: int, *, tokens: int = 24) -> float:
    """Largest change of attention's output over joint shifts of up to ten million positions, in any layer.

    Vectors have unit variance and float64. A rule of several streams is shifted in each; a rule that chooses by
    length is told the same length before and after.
    """
    shape = Shape(dim=8, depth=1, heads=4, kv_heads=2, head_dim=head_dim, hidden=8)
    q, k, v = (
        make_vectors(heads * tokens, head_dim, seed).view(1, heads, tokens, head_dim)
        for seed, heads in enumerate((4, 2, 2))
    )
    positions = torch.arange(tokens).unsqueeze(0)
    if rule.streams > 1:
        positions = torch.stack([positions // 5 + positions % (3 + stream) for stream in range(rule.streams)], dim=-1)

    def out(layer: FullAttention, shift: Tensor, length: int) -> Tensor:
        lengths = torch.full((1, tokens), length)
        context = ForwardContext(tokens, positions=positions + shift, lengths=lengths)
        rotated = rotate_queries_keys(layer, torch.cat((q, k), dim=1), context)
        return compute_attention(Heads(*rotated, v), context, layer.attention_spec())

    change = 0.0
    for layer_positions in make_layer_positions(rule, head_dim):
        layer = FullAttention(shape, layer=0).eval()
        layer.bind_positions(layer_positions)
        for length in (tokens, 10_000_000):
            still = out(
                layer, torch.zeros(rule.streams, dtype=torch.long) if rule.streams > 1 else torch.tensor(0), length
            )
            for shift in SHIFTS:
                for moved in list_stream_shifts(shift, rule.streams):
                    change = max(change, (out(layer, moved, length) - still).abs().max().item())
    return change


def list_stream_shifts(size: int, streams: int) -> list[Tensor]:
    """The same shift of every stream alone."""
    if streams == 1:
        return [torch.tensor(size)]
    return [torch.eye(streams, dtype=torch.long)[stream] * size for stream in range(streams)]
