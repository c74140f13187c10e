"""Rotary rules as the `rope_parameters` of a config.json.

A rule is written under its own name where transformers has it, and otherwise, if its frequencies are fixed or switch
at a length, as `longrope` with a list of divisors, which says the same numbers. Our temperature is a factor on the
logits; there it is `attention_factor`, on queries and keys each, its root.
"""

from __future__ import annotations

import math
from typing import Any

from aptlab.errors import ConfigError
from aptlab.models.hf.rope_from_hf import read_rope_rule
from aptlab.nn.positions.rope import (
    NTK,
    Dynamic,
    Frequencies,
    Learnable,
    Linear,
    Llama3,
    NoRope,
    NTKLiu,
    Partial,
    Proportional,
    Rope,
    ScaledRotation,
    SearchedRotation,
    Standard,
    YaRN,
    compute_standard_frequencies,
)
from aptlab.nn.positions.rope.multi_axis import SectionedRotation

CLOSE = 1e-12  # relative difference of frequencies that counts as none
Written = tuple[dict[str, Any], str | None]


def build_rope_parameters(
    rule: Rope, head_dim: int, *, learned: Frequencies | None = None, nested: bool = False
) -> Written:
    """A rule's `rope_parameters`, and a note for the user where the layout says it differently.

    learned  frequencies of a rule that learns them
    nested   whether they stand below a layer type: there transformers ignores `truncate`

    Raises ConfigError for a rule that the layout cannot express.
    """
    _relative_to_text(rule, head_dim)
    found = _named(rule, head_dim)
    lost = nested and isinstance(rule, YaRN) and not rule.truncate
    if found is not None and not lost and _says(found[0], rule, head_dim):
        return found
    return _as_divisors(rule, head_dim, learned)


def _relative_to_text(rule: Rope, head_dim: int) -> None:
    """Raises ConfigError for what no `rope_type` computes."""
    name = f"rope={type(rule).__name__}"
    way_out = "train with rope=standard, linear, ntk, yarn, llama3 or longrope to export"
    problem = None
    if isinstance(rule, NoRope):
        problem = "has no frequencies"
    elif rule.decay(head_dim) is not None:
        problem = "shrinks logits with distance, which no layout does"
    elif rule.amplitude(head_dim) is not None:
        problem = "shrinks queries and keys with position, which no layout does"
    elif rule.streams > 1 and not _is_plain_for_text(rule):
        problem = f"reads positions of {rule.streams} numbers, and the layouts of language models have one"
    elif rule.head_regimes(2) is not None:
        problem, way_out = "differs from head to head, which no layout does", "rope=irope_pairs can be exported"
    elif getattr(rule, "retained", 0):
        problem, way_out = (
            f"with rope.retained={rule.retained} turns the first tokens by other frequencies",  # type: ignore[attr-defined]
            "train with rope.retained=0 to export",
        )
    elif len(rule.regimes(head_dim)) > 1 and not isinstance(rule, SearchedRotation):
        problem, way_out = "goes by the position of a token, which no layout does", "rope=irope_pairs can be exported"
    elif rule.rotary_class.endswith("MixedRotary"):
        problem = "learns frequencies for two streams"
    if problem:
        raise ConfigError(f"{name} cannot be exported to format=hf: it {problem}; {way_out}")
    _temperature_of_all(rule, head_dim)


def _is_plain_for_text(rule: Rope) -> bool:
    return isinstance(rule, SectionedRotation) and rule.grid is None


def _temperature_of_all(rule: Rope, head_dim: int) -> None:
    """Raises ConfigError for temperatures that a factor on cosines and sines does not say."""
    values = set(rule.temperatures())
    if len(values) > 1:
        raise ConfigError(
            f"rope={type(rule).__name__} with rope.attention_factor beyond original_len only cannot be exported to "
            "format=hf: the layouts have one factor for all lengths; train with rope.attention_factor=null to export"
        )
    turning = len(rule.inv_freq(head_dim))
    if values != {1.0} and turning < head_dim // 2 and rule.temperature_on == "logits":
        raise ConfigError(
            "rope.temperature_on=logits with a rope that turns a part of each head cannot be exported to format=hf: "
            "there the temperature multiplies the turning part alone; train with rope.temperature_on=cos_sin to export"
        )


def _named(rule: Rope, head_dim: int) -> Written | None:
    """The rule under the name that transformers has for it; None where it has none."""
    base = float(getattr(rule, "base", 10_000.0))
    if isinstance(rule, Standard):
        return _parameters("default", base), None
    if isinstance(rule, SectionedRotation):
        return _parameters("default", base), "rope=mrope is written as the default rope: for text they are the same"
    if isinstance(rule, Linear):
        return _parameters("linear", base, factor=rule.stretch), None
    if isinstance(rule, NTK | NTKLiu):
        scaled = rule.scaled_base(head_dim) if isinstance(rule, NTK) else rule.scaled_base()
        name = "ntk" if isinstance(rule, NTK) else "ntk_liu"
        note = f"rope={name} is written as the default rope with its scaled base, rope_theta={scaled:.10g}"
        return _parameters("default", scaled), note
    if isinstance(rule, Dynamic):
        factor = rule.stretch if rule.law == "hf" else 1.0  # the paper's law is the other with factor 1
        note = "transformers changes the base of rope=dynamic under cached keys: long answers differ from a full pass"
        return _parameters("dynamic", base, factor=factor), note
    if isinstance(rule, Partial):
        return _parameters("default", base, partial_rotary_factor=float(rule.fraction)), None
    if isinstance(rule, Proportional):
        fraction, factor = float(rule.fraction), float(rule.factor)
        return _parameters("proportional", base, partial_rotary_factor=fraction, factor=factor), None
    if isinstance(rule, YaRN):
        return _yarn(rule, base), None
    if isinstance(rule, Llama3):
        return _llama3(rule, base), None
    return None


def _parameters(kind: str, base: float, **values: float) -> dict[str, Any]:
    return {"rope_type": kind, "rope_theta": base, **values}


def _yarn(rule: YaRN, base: float) -> dict[str, Any]:
    return {
        "rope_type": "yarn",
        "rope_theta": base,
        "factor": rule.stretch,
        "original_max_position_embeddings": rule.original_len,
        "attention_factor": math.sqrt(rule.temperature),
        "beta_fast": float(rule.beta_fast),
        "beta_slow": float(rule.beta_slow),
        "truncate": rule.truncate,
    }


def _llama3(rule: Llama3, base: float) -> dict[str, Any]:
    return {
        "rope_type": "llama3",
        "rope_theta": base,
        "factor": rule.stretch,
        "original_max_position_embeddings": rule.original_len,
        "low_freq_factor": float(rule.low),
        "high_freq_factor": float(rule.high),
    }


def _says(parameters: dict[str, Any], rule: Rope, head_dim: int) -> bool:
    """Whether reading the parameters gives the rule's frequencies and temperature."""
    length = getattr(rule, "original_len", 4096)
    read = read_rope_rule({"rope_parameters": parameters, "max_position_embeddings": length, "model_type": "phi3"})
    mine, theirs = rule.inv_freq(head_dim), read.inv_freq(head_dim)
    return (
        math.isclose(rule.temperature, read.temperature, rel_tol=CLOSE)
        and len(mine) == len(theirs)
        and all(math.isclose(a, b, rel_tol=CLOSE) for a, b in zip(mine, theirs, strict=True))
    )


def _as_divisors(rule: Rope, head_dim: int, learned: Frequencies | None) -> Written:
    """Frequencies as divisors of the standard ones: `longrope`, with two equal lists where nothing switches."""
    regimes = (learned,) if learned is not None else rule.regimes(head_dim)
    base = float(getattr(rule, "base", 10_000.0))
    turning = rule.turning(head_dim) if isinstance(rule, SearchedRotation) else head_dim
    standard = compute_standard_frequencies(base, turning)
    if any(len(regime) != len(standard) or min(regime) <= 0 for regime in regimes):
        raise ConfigError(
            f"rope={type(rule).__name__} cannot be exported to format=hf: some of its pairs do not turn, and "
            "transformers has no name for it; train with rope=partial or rope=proportional to export"
        )
    short, long = ([s / f for s, f in zip(standard, each, strict=True)] for each in (regimes[0], regimes[-1]))
    if isinstance(rule, SearchedRotation):  # given lists as they are, not through a quotient
        short, long = list(rule.short or short), list(rule.long or long)
    factor = rule.stretch if isinstance(rule, ScaledRotation) else max(1.0, max(long))
    parameters = {
        "rope_type": "longrope",
        "rope_theta": base,
        "factor": factor,
        "original_max_position_embeddings": getattr(rule, "original_len", 4096),
        "attention_factor": math.sqrt(rule.temperature),
        "short_factor": short,
        "long_factor": long,
    }
    if turning != head_dim:
        parameters["partial_rotary_factor"] = turning / head_dim
    return parameters, _note(rule)


def _note(rule: Rope) -> str | None:
    if isinstance(rule, SearchedRotation):
        return None
    what = "with the frequencies it has learned, " if isinstance(rule, Learnable) else ""
    return (
        f"rope={type(rule).__name__} has no name in transformers and is written {what}as rope_type=longrope with two "
        "equal lists of divisors, which are its exact frequencies"
    )


def compute_stretched_length(rule: Rope, context: int) -> int:
    """Tokens that the rule stretches `context` to; what a layout takes for the trained length is exact."""
    if isinstance(rule, Dynamic):
        return rule.original_len
    if isinstance(rule, ScaledRotation):
        return max(round(rule.original_len * rule.stretch), rule.original_len + 1)
    return context
