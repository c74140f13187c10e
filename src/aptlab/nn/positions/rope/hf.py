"""What a config.json of Hugging Face says of a rotation, and what is written there. Plain numbers, no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from aptlab.errors import ConfigError

EXPORTED = "train with rope=standard, linear, ntk, yarn, llama3 or longrope to export"  # the way out of most refusals


class HFForm(NamedTuple):
    """The `rope_parameters` of a rule, and a note for the user where the layout says it differently."""

    parameters: dict[str, Any]
    note: str | None = None


class HFRefusal(NamedTuple):
    """Why no `rope_type` computes a rule ("it …"), and what to do instead."""

    reason: str
    way_out: str = EXPORTED


@dataclass(frozen=True)
class HFSource:
    """The part of a config.json that names a rule.

    parameters  its `rope_parameters`, or the older `rope_scaling`
    config      the whole file
    base        rope_theta
    fraction    part of each head that rotates; 1 = all of it
    """

    parameters: Mapping[str, Any]
    config: Mapping[str, Any]
    base: float = 10_000.0
    fraction: float = 1.0

    def read_number(self, key: str) -> float:
        """A number of the parameters; ConfigError names the key where there is none."""
        return read_number(self.parameters, key)

    def read_original_length(self) -> int:
        """The trained length; a key of the config itself goes first, as in Phi-3."""
        name = "original_max_position_embeddings"
        return int(self.config.get(name) or self.parameters.get(name) or self.read_max_positions())

    def read_max_positions(self) -> int:
        """Tokens that the model reads, stretching included."""
        return int(read_number(self.config, "max_position_embeddings"))

    def read_factor(self, original_len: int) -> float:
        """`factor`, or the ratio of both lengths where it is not given."""
        return float(self.parameters.get("factor") or self.read_max_positions() / original_len)


def read_number(values: Mapping[str, Any], key: str) -> float:
    """A number of a config.json; ConfigError names the key and what stands there."""
    value = values.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{key}={value!r} in config.json is not a number, and the rope needs it; repair the file")
    return float(value)


def make_hf_parameters(kind: str, base: float, **values: Any) -> dict[str, Any]:
    """`rope_parameters` of one `rope_type`: its base, and what else it takes."""
    return {"rope_type": kind, "rope_theta": base, **values}
