"""What every position rule says: pure math on Python floats, no torch.

A rule says how fast each pair of a head rotates. For head dimension D there are P = D/2 pairs; pair i of
the standard rule rotates by `base^(-2i/D)` radians per token (Su et al. 2021, arXiv:2104.09864). The
extension rules slow pairs down so that a longer context meets only angles seen in training.

`relative` declares that the logit of a query at m and a key at n depends on m - n alone.

Methods that choose per token (`regime`) get tensors and use their operators only, so this file needs no torch.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

from aptlab.errors import ConfigError
from aptlab.limits import Positive, validate_limits
from aptlab.nn.positions.layer import LayerPositions
from aptlab.nn.positions.rope.hf import HFForm, HFRefusal, HFSource

Frequencies = tuple[float, ...]


class Scaling(NamedTuple):
    """How far a rule stretches the context that weights were trained with."""

    factor: float
    original_len: int


class Rope(abc.ABC):
    """A rule of rotary positions. Subclasses are frozen dataclasses."""

    relative: ClassVar[bool] = True
    streams: ClassVar[int] = 1  # numbers that make a position: 1 text, 2 (height, width), 3 (time, height, width)
    rotary_class: ClassVar[str] = "aptlab.nn.positions.rotary:RotaryEmbedding"  # the module that rotates by this rule
    way_to_relative: ClassVar[str] = "rope=standard is relative"  # said where `relative` is False
    switches_by_length: ClassVar[bool] = False  # its regimes go by the length of a text, not by positions
    learns_frequencies: ClassVar[bool] = False
    hf_type: ClassVar[str] = ""  # the `rope_type` that it is read from; "" = none
    hf_heads: ClassVar[tuple[str, ...]] = ("whole",)  # and the heads: whole, part (in Phi-3's layout), any (in all)
    layout: str = "half"
    temperature_on: str = "logits"

    def __post_init__(self) -> None:
        """Raises ConfigError for a number outside its limits."""
        validate_limits(self)

    @abc.abstractmethod
    def inv_freq(self, head_dim: int) -> Frequencies:
        """Radians per token of each pair, fastest first, in float64.

        P <= head_dim / 2 numbers; with fewer, only the first 2P dims of a head rotate.
        """

    @property
    def temperature(self) -> float:
        """Factor on the attention logits q·k (1 = none)."""
        return 1.0

    def regimes(self, head_dim: int) -> tuple[Frequencies, ...]:
        """The sets of frequencies among which `regime` or `head_regimes` chooses."""
        return (self.inv_freq(head_dim),)

    def temperatures(self) -> tuple[float, ...]:
        """Factor on the logits of each regime's queries."""
        return (self.temperature,)

    @property
    def scaling(self) -> Scaling | None:
        """Factor and trained length of a rule that stretches a context; None = it does not."""
        return None

    @property
    def plain_for_text(self) -> bool:
        """Whether text has one number a position, or the same one in every stream."""
        return self.streams == 1

    def stretched_length(self, context: int) -> int:
        """Tokens that the rule stretches a context of `context` tokens to."""
        return context

    def count_hf_positions(self, context: int) -> int:
        """`max_position_embeddings` of a config.json: what the rule stretches a context to."""
        return self.stretched_length(context)

    def frequencies_at(self, length: int, head_dim: int) -> Frequencies:
        """The frequencies that a text of `length` tokens meets, as `inv_freq`."""
        del length
        return self.inv_freq(head_dim)

    def list_length_warnings(self, option: str, length: int) -> Iterator[str]:
        """What contradicts reading `length` tokens, each with a way out; `option` is the rule's name in conf/rope."""
        del option, length
        yield from ()

    def divisors(self, head_dim: int, learned: Frequencies | None = None) -> tuple[Frequencies, Frequencies]:
        """What the standard frequencies are divided by in short and in long texts, [P] each.

        learned  frequencies of a rule that learns them. Raises ConfigError where a pair does not rotate.
        """
        divisors = divide_standard(self, learned or self.inv_freq(head_dim), self.rotary_dims(head_dim))
        return divisors, divisors

    def rotary_dims(self, head_dim: int) -> int:
        """How many dims of a head the divisors are for."""
        return head_dim

    @property
    def reference_base(self) -> float:
        """The base of the standard frequencies that are divided."""
        return 10_000.0

    def to_hf(self, head_dim: int, *, nested: bool = False) -> HFForm | None:
        """The rule under the name that transformers has for it; None = it has none, and divisors say the same.

        nested  whether it stands below a layer type: there transformers ignores `truncate`
        """
        del head_dim, nested

    @classmethod
    def from_hf(cls, source: HFSource) -> Rope:
        """The rule that `rope_type` = `hf_type` names; ConfigError names the key that is missing."""
        del source
        raise ConfigError(f"rope={cls.__name__} cannot be read from a config.json: no rope_type names it")

    def hf_refusal(self, head_dim: int) -> HFRefusal | None:
        """Why the rule cannot be exported to Hugging Face; None = it can."""
        pairs = "rope=irope_pairs can be exported"
        if self.decay(head_dim) is not None:
            return HFRefusal("shrinks logits with distance, which no layout does")
        if self.amplitude(head_dim) is not None:
            return HFRefusal("shrinks queries and keys with position, which no layout does")
        if not self.plain_for_text:
            return HFRefusal(f"reads positions of {self.streams} numbers, and the layouts of language models have one")
        if self.head_regimes(2) is not None:
            return HFRefusal("differs from head to head, which no layout does", pairs)
        if len(self.regimes(head_dim)) > 1 and not self.switches_by_length:
            return HFRefusal("goes by the position of a token, which no layout does", pairs)
        return None

    def regime(self, positions: Any, lengths: Any) -> Any:
        """Index of each token's regime, int64 like `positions` [B, T]; None where there is one for all.

        `lengths` [B, T] is the length of the sequence that the token belongs to, with what is still to be generated:
        it is known when the sequence begins, so that other rows of the batch change nothing.
        """
        del positions, lengths

    def head_regimes(self, groups: int) -> tuple[int, ...] | None:
        """Index of each key/value head's regime; None where heads do not differ."""
        del groups
        return None

    def combine(self, head_dim: int) -> tuple[tuple[int, ...], ...] | None:
        """Per pair, the integers by which the position's streams are multiplied and summed; None = the one stream."""
        del head_dim
        return None

    def amplitude(self, head_dim: int) -> Frequencies | None:
        """Per pair the rate r of exp(-r · position) on queries and keys alike; None = norms are kept."""
        del head_dim
        return None

    def decay(self, head_dim: int) -> Frequencies | None:
        """Per pair the factor in (0, 1] by which the logit shrinks with every token of distance; None = none."""
        del head_dim
        return None

    def for_layer(self, layer: int) -> LayerPositions:
        """What positions do in one layer."""
        del layer
        return LayerPositions(rule=self)


@dataclass(frozen=True, kw_only=True)
class Rotation(Rope):
    """A rule with a base: what all options share that rotate every layer alike.

    layout          which dims of a head form pair i of P: half = (i, i + P) as in Hugging Face checkpoints,
                    interleaved = (2i, 2i + 1) as in Su et al. 2021, eq. 34, and Meta's weights
    temperature_on  logits = the temperature multiplies the softmax scale; cos_sin = queries and keys each are
                    multiplied by its root where they rotate, as some checkpoints expect
    """

    base: Positive = 10_000.0
    layout: Literal["half", "interleaved"] = "half"
    temperature_on: Literal["logits", "cos_sin"] = "logits"

    @property
    def reference_base(self) -> float:
        """The rule's own base."""
        return float(self.base)

    def __post_init__(self) -> None:
        """Raises ConfigError for a number outside its limits or a word that is not allowed."""
        super().__post_init__()
        check_choice("layout", self.layout, ("half", "interleaved"))
        check_choice("temperature_on", self.temperature_on, ("logits", "cos_sin"))


def check_choice(name: str, value: object, allowed: tuple[str, ...]) -> None:
    """Raises ConfigError unless `value` is one of the allowed words; `name` is the key."""
    if value not in allowed:
        raise ConfigError(f"{name}={value!r}; allowed: {', '.join(allowed)}")


def compute_standard_frequencies(base: float, head_dim: int) -> Frequencies:
    """theta_i = base^(-2i/D) for i = 0 .. D/2 - 1."""
    if head_dim < 2 or head_dim % 2:
        raise ConfigError(f"head_dim={head_dim} is not a positive even number, rotary pairs need one")
    if base <= 1:
        raise ConfigError(f"base={base} must be larger than 1, so that later pairs rotate slower; published: 10000")
    return tuple(base ** (-2 * i / head_dim) for i in range(head_dim // 2))


def round_up_fraction(dims: int, head_dim: int) -> float:
    """The least fraction of three digits that has `dims` dims of a head."""
    return math.ceil(1000 * dims / head_dim) / 1000


def count_rotary_dims(head_dim: int, fraction: float) -> int:
    """The first `fraction` of a head's dims; ConfigError unless they are pairs."""
    rotary_dims = int(head_dim * fraction)
    if rotary_dims < 2 or rotary_dims % 2:
        raise ConfigError(
            f"fraction={fraction} of head_dim={head_dim} is {rotary_dims} dims, and pairs need an even "
            f"number of at least 2; use fraction={round_up_fraction(max(2, rotary_dims + rotary_dims % 2), head_dim):g}"
        )
    return rotary_dims


def divide_standard(rule: Rope, frequencies: Frequencies, head_dim: int) -> Frequencies:
    """Per pair, the standard frequency by the given one; ConfigError where a pair does not rotate."""
    standard = compute_standard_frequencies(rule.reference_base, head_dim)
    if len(frequencies) != len(standard) or min(frequencies) <= 0:
        raise ConfigError(
            f"rope={type(rule).__name__} cannot be exported to format=hf: some of its pairs do not rotate, and "
            "transformers has no name for it; train with rope=partial or rope=proportional to export"
        )
    return tuple(s / f for s, f in zip(standard, frequencies, strict=True))


def blend_frequencies(frequencies: Frequencies, factor: float, keep: Frequencies) -> Frequencies:
    """Per pair: `keep` parts of the frequency as it is, the rest divided by `factor`."""
    return tuple(k * f + (1 - k) * f / factor for f, k in zip(frequencies, keep, strict=True))


def clamp_to_unit(value: float) -> float:
    """The nearest number in [0, 1]."""
    return min(1.0, max(0.0, value))


def count_rotations(frequency: float, length: int) -> float:
    """How often a pair rotates within `length` tokens."""
    return length * frequency / (2 * math.pi)
