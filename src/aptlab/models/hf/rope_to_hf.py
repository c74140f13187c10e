"""Rotary rules as the `rope_parameters` of a config.json.

A rule is written under its own name where transformers has it, and otherwise, if its frequencies are fixed or switch
at a length, as `longrope` with a list of divisors, which says the same numbers. Our temperature is a factor on the
logits; there it is `attention_factor`, on queries and keys each, its root.
"""

from __future__ import annotations

import math
from typing import Any

from aptlab.errors import ConfigError
from aptlab.models.hf.rope_from_hf import parse_rope_parameters
from aptlab.nn.positions.rope import Frequencies, Rope
from aptlab.nn.positions.rope.base import Scaling
from aptlab.nn.positions.rope.hf import HFForm, make_hf_parameters

CLOSE = 1e-12  # relative difference of frequencies that counts as none
LONG = 1 << 40  # tokens: at this length a rule that goes by length has other frequencies
UNSCALED = 4096  # the trained length that is written for a rule that stretches nothing


def build_rope_parameters(
    rule: Rope,
    head_dim: int,
    *,
    learned: Frequencies | None = None,
    nested: bool = False,
    types: tuple[str, ...] = (),
) -> HFForm:
    """A rule's `rope_parameters`, and a note for the user where the layout says it differently.

    learned  frequencies of a rule that learns them
    nested   whether they stand below a layer type: there transformers ignores `truncate`
    types    the `rope_type`s that the layout takes; () = all

    Raises ConfigError for a rule that the layout cannot express.
    """
    refusal = rule.hf_refusal(head_dim)
    if refusal is not None:
        raise ConfigError(
            f"rope={type(rule).__name__} cannot be exported to format=hf: it {refusal.reason}; {refusal.way_out}"
        )
    _check_temperatures(rule, head_dim)
    form = rule.to_hf(head_dim, nested=nested)
    if form is not None and types and form.parameters["rope_type"] not in types:
        if rule.frequencies_at(1, head_dim) != rule.frequencies_at(LONG, head_dim):
            raise ConfigError(
                f"rope={type(rule).__name__} with rope.fraction={rule.rotary_dims(head_dim) / head_dim:g} cannot be "
                f"exported to format=hf: its layout has rope_type={' and '.join(types)}, and its frequencies go by the "
                "length of a text; train with rope=yarn or with rope.fraction=1 to export"
            )
    elif form is not None:
        _write_part(form.parameters, rule, head_dim)
        if _says(form.parameters, rule, head_dim):
            return form
    return _as_divisors(rule, head_dim, learned)


def _check_temperatures(rule: Rope, head_dim: int) -> None:
    """Raises ConfigError for temperatures that a factor on cosines and sines does not say."""
    values = set(rule.temperatures())
    if len(values) > 1:
        raise ConfigError(
            f"rope={type(rule).__name__} with rope.attention_factor beyond original_len only cannot be exported to "
            "format=hf: the layouts have one factor for all lengths; train with rope.attention_factor=null to export"
        )
    pairs = len(rule.inv_freq(head_dim))
    if values != {1.0} and pairs < head_dim // 2 and rule.temperature_on == "logits":
        raise ConfigError(
            "rope.temperature_on=logits with a rope that rotates a part of each head cannot be exported to format=hf: "
            "there the temperature multiplies the rotating part alone; train with rope.temperature_on=cos_sin to export"
        )


def _says(parameters: dict[str, Any], rule: Rope, head_dim: int) -> bool:
    """Whether reading the parameters gives the rule's frequencies and temperature."""
    length = rule.scaling.original_len if rule.scaling else UNSCALED
    read, _ = parse_rope_parameters(parameters, {"max_position_embeddings": length, "model_type": "phi3"})
    mine, theirs = rule.inv_freq(head_dim), read.inv_freq(head_dim)
    return (
        math.isclose(rule.temperature, read.temperature, rel_tol=CLOSE)
        and len(mine) == len(theirs)
        and all(math.isclose(a, b, rel_tol=CLOSE) for a, b in zip(mine, theirs, strict=True))
    )


def _as_divisors(rule: Rope, head_dim: int, learned: Frequencies | None) -> HFForm:
    """Frequencies as divisors of the standard ones: `longrope`, with two equal lists where nothing switches."""
    short, long = rule.divisors(head_dim, learned)
    scaling = rule.scaling or Scaling(max(1.0, max(long)), UNSCALED)
    parameters = make_hf_parameters(
        "longrope",
        rule.reference_base,
        factor=scaling.factor,
        original_max_position_embeddings=scaling.original_len,
        attention_factor=math.sqrt(rule.temperature),
        short_factor=list(short),
        long_factor=list(long),
    )
    _write_part(parameters, rule, head_dim)
    return HFForm(parameters, None if rule.switches_by_length else _note(rule))


def _write_part(parameters: dict[str, Any], rule: Rope, head_dim: int) -> None:
    """Say which part of each head rotates, where a rule of whole heads rotates a part."""
    if rule.rotary_dims(head_dim) != head_dim:
        parameters["partial_rotary_factor"] = rule.rotary_dims(head_dim) / head_dim


def _note(rule: Rope) -> str:
    what = "with the frequencies it has learned, " if rule.learns_frequencies else ""
    return (
        f"rope={type(rule).__name__} has no name in transformers and is written {what}as rope_type=longrope with two "
        "equal lists of divisors, which are its exact frequencies"
    )
