"""What a config.json of Hugging Face says of a rotation, and what is written there. Plain numbers, no torch."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from aptlab.errors import ConfigError

LARGEST, MOST = sys.float_info.max, 1 << 48  # of a number; of tokens
ORIGINAL = "original_max_position_embeddings"
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

    def find_number(self, key: str) -> float | None:
        """The same where the key may be absent or null: None then."""
        return None if self.parameters.get(key) is None else self.read_number(key)

    def read_flag(self, key: str, default: bool) -> bool:
        """True or false; ConfigError names the key where something else stands."""
        value = self.parameters.get(key, default)
        if not isinstance(value, bool):
            raise ConfigError(f"{key}={value!r} in config.json is neither true nor false; repair the file")
        return value

    def find_original_length(self) -> int | None:
        """The trained length where a key gives it; one of the config itself goes first, as in transformers."""
        for values in (self.config, self.parameters):
            if values.get(ORIGINAL) is not None:
                return read_length(values, ORIGINAL)
        return None

    def read_original_length(self) -> int:
        """The trained length, which is the longest where no key gives it."""
        found = self.find_original_length()
        return self.read_max_positions() if found is None else found

    def read_max_positions(self) -> int:
        """Tokens that the model reads."""
        return read_length(self.config, "max_position_embeddings")

    def read_factor(self, original_len: int) -> float:
        """`factor`, or the ratio of both lengths where it is not given."""
        given = self.find_number("factor")
        return self.read_max_positions() / original_len if given is None else given


def read_number(values: Mapping[str, Any], key: str) -> float:
    """A number of a config.json; ConfigError names the key and what stands there."""
    value = values.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not -LARGEST <= value <= LARGEST:
        raise ConfigError(f"{key}={value!r} in config.json is not a number, and the rope needs it; repair the file")
    return float(value)


def read_length(values: Mapping[str, Any], key: str) -> int:
    """A number of tokens; ConfigError names the key where there is none."""
    value = read_number(values, key)
    if not 1 <= value <= MOST or value != int(value):
        raise ConfigError(f"{key}={value:g} in config.json is no number of tokens; repair the file")
    return int(value)


def make_hf_parameters(kind: str, base: float, **values: Any) -> dict[str, Any]:
    """`rope_parameters` of one `rope_type`: its base, and what else it takes."""
    return {"rope_type": kind, "rope_theta": base, **values}
