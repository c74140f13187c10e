"""The rope keys of a config.json in one form: which of them count, as transformers 5 decides.

A file says its rope in `rope_parameters` (transformers 5), in `rope_scaling` beside `rope_theta` (before), or in both.
The order is that of transformers 5.24, `RotaryEmbeddingConfigMixin` and the configuration of each family: rope_scaling
goes before rope_parameters as a whole, a theta inside before the one beside, and a trained length beside before the one
inside. What loses and says another thing is told.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from aptlab.errors import ConfigError
from aptlab.models.hf.defaults import fill_defaults, rename_keys
from aptlab.models.hf.family import FAMILIES, GEMMA3, PHI3
from aptlab.models.hf.family_blocks import OLMO3
from aptlab.nn.positions.rope.hf import LARGEST, ORIGINAL, read_length, read_number

PLAIN = 10_000.0  # theta where nothing says one
OLD, NEW, THETA, PART = "rope_scaling", "rope_parameters", "rope_theta", "partial_rotary_factor"
FULL, SLIDING = "full_attention", "sliding_attention"
BASES = {  # where the older form has the base of each kind of layer, and what it is else
    GEMMA3.model_type: {FULL: (THETA, 1_000_000.0), SLIDING: ("rope_local_base_freq", PLAIN)},
    OLMO3.model_type: {FULL: (THETA, 500_000.0), SLIDING: ("", 500_000.0)},
}
STRETCHED = ("llama3", "yarn", "longrope")  # types for which transformers notes a trained length
RENAMED = {PHI3.model_type: {"su": "longrope", "yarn": "longrope"}}  # as Phi3Config does
NAMED = {PHI3.model_type: ("default", "longrope")}  # and what it takes
Given = Mapping[str, Any]


class RopeGiven(NamedTuple):
    """A config.json whose one rope key is `rope_parameters`, complete.

    key    where its values stood in the file
    notes  lines for the user
    """

    config: dict[str, Any]
    key: str
    notes: list[str]


def resolve_rope(config: Given) -> RopeGiven:
    """The config with its defaults and one complete `rope_parameters`: type, theta, and the trained length.

    Raises ConfigError naming the key for what transformers does not read either.
    """
    kind = str(config.get("model_type"))
    file, config, filled = config, rename_keys(config), fill_defaults(config)
    old, new = _mapping(config, OLD), _mapping(config, NEW)
    if kind in BASES:
        return _resolve_by_kind(filled, old, new, BASES[kind])
    if new is None and not old:
        new = dict(FAMILIES[kind].defaults.get(NEW, {})) if kind in FAMILIES else {}
    chosen, key = (old, OLD) if old else (new or {}, NEW)
    layered = [name for name in (FULL, SLIDING, "chunked_attention") if name in chosen]
    if layered:
        raise ConfigError(
            f"{key}.{layered[0]} in config.json cannot be imported with model_type={kind}: its layers have one rope in "
            f"transformers; write the keys of one rope into {key}"
        )
    notes = _tell_both(old, new, config, kind) if old and new else []
    notes += _tell_loser(f"{key}.{THETA}", chosen.get(THETA), THETA, config.get(THETA))
    notes += _tell_loser(f"{key}.{PART}", chosen.get(PART), PART, config.get(PART))
    parameters = _named(chosen, key, kind, notes)
    parameters[THETA] = _read_base(chosen, key, config, THETA, _default_base(kind))
    if parameters["rope_type"] in STRETCHED:
        notes += _tell_loser(ORIGINAL, filled.get(ORIGINAL), f"{key}.{ORIGINAL}", chosen.get(ORIGINAL))
        _note_length(parameters, filled)
    notes += _tell_other_names(file, filled, parameters, kind)
    gone = (OLD, THETA, *([ORIGINAL] if parameters["rope_type"] in STRETCHED else []))
    rest = {name: value for name, value in filled.items() if name not in gone}
    return RopeGiven(rest | {NEW: parameters}, key, notes)


def _resolve_by_kind(
    config: Given, old: Given | None, new: Given | None, bases: Mapping[str, tuple[str, float]]
) -> RopeGiven:
    """`rope_parameters` by kind of layer; the older form speaks of full layers, and is mixed into them."""
    given: dict[str, Any] = dict(new or dict.fromkeys(bases))
    if not set(bases) & set(given):
        raise ConfigError(
            f"{NEW}={dict(given)} in config.json names neither {FULL} nor {SLIDING}, and transformers ignores it in "
            "this layout; repair the file"
        )
    if old and new is not None and not isinstance(given.get(FULL), Mapping):
        raise ConfigError(
            f"{OLD} beside {NEW} without {FULL} in config.json cannot be imported: transformers mixes them, and fails; "
            f"write its keys into {NEW}.{FULL}"
        )
    notes = [
        f"warning: {NEW}.{name}={value} in config.json is not read: it stands below {FULL} and {SLIDING} in model_type="
        f"{config['model_type']}"
        for name, value in given.items()
        if name not in bases
    ]
    parameters = {}
    for layers, (beside, base) in bases.items():
        mine: dict[str, Any] = dict(given.get(layers) or {"rope_type": "default"})
        key = f"{NEW}.{layers}"
        if layers == FULL and old:
            notes += _tell_mixed(old, mine) if new else []
            mine |= old
            key = key if new else OLD
        notes += _tell_loser(f"{key}.{THETA}", mine.get(THETA), beside, config.get(beside))
        named = _named(mine, key, str(config["model_type"]), notes)
        named[THETA] = _read_base(mine, key, config, beside, base)
        parameters[layers] = _of_layers(named, config, key, notes)
    near, far = parameters[SLIDING][THETA], parameters[FULL][THETA]
    if THETA in config and not bases[SLIDING][0] and new is None and near != far:
        notes.append(
            f"warning: rope_theta={far:g} counts in full layers alone, sliding layers have {near:g}, as in "
            "transformers; rope_parameters.sliding_attention.rope_theta in config.json says another"
        )
    gone = (OLD, THETA, ORIGINAL, *(beside for beside, _ in bases.values()))
    return RopeGiven({k: v for k, v in config.items() if k not in gone} | {NEW: parameters}, NEW, notes)


def _of_layers(named: dict[str, Any], config: Given, key: str, notes: list[str]) -> dict[str, Any]:
    """What transformers reads otherwise below a kind of layers, and Gemma's length, which counts the stretch in."""
    if named["rope_type"] in STRETCHED and named.get(ORIGINAL) is None:
        named[ORIGINAL] = read_length(config, "max_position_embeddings")
    if named["rope_type"] == "linear" and named.get(ORIGINAL) is None:
        longest, factor = read_length(config, "max_position_embeddings"), read_number(named, "factor")
        named[ORIGINAL] = max(1, round(longest / max(factor, 1.0)))
    if not named.get("truncate", True):
        notes.append(
            f"warning: {key}.truncate={str(named.pop('truncate')).lower()} in config.json is not read: transformers "
            "looks for it outside of the kinds of layers"
        )
    return named


def _named(chosen: Given, key: str, model_type: str, notes: list[str]) -> dict[str, Any]:
    """The parameters under the `rope_type` that counts; older files say `type`."""
    kind = str(chosen.get("rope_type", chosen.get("type", "default")))
    older = chosen.get("type")
    if older is not None and older != kind:
        notes += _tell_loser(f"{key}.rope_type", kind, f"{key}.type", older)
    renamed = RENAMED.get(model_type, {}).get(kind, kind)
    if renamed != kind and kind != "su":
        notes.append(f"{key}.rope_type={kind} is read as {renamed}, as transformers does in model_type={model_type}")
    allowed = NAMED.get(model_type)
    if allowed and renamed not in allowed:
        raise ConfigError(
            f"{key}.rope_type={kind} cannot be imported with model_type={model_type}: transformers has "
            f"{' and '.join(allowed)} there; repair the file"
        )
    return {name: value for name, value in chosen.items() if name != "type"} | {"rope_type": renamed}


def _read_base(chosen: Given, key: str, config: Given, beside: str, default: float) -> float:
    """The theta inside, else beside, else the family's; null is no number, as in transformers."""
    values, name, place = (chosen, THETA, f"{key}.") if THETA in chosen else (config, beside, "")
    if name not in values:
        return default
    value = values[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 < value <= LARGEST:
        raise ConfigError(
            f"{place}{name}={value!r} in config.json is no number above 1, and frequencies are powers of it; repair "
            f"the file: without the key it is {default:g}"
        )
    return float(value)


def _default_base(kind: str) -> float:
    return float(FAMILIES[kind].defaults.get(THETA, PLAIN)) if kind in FAMILIES else PLAIN


def _note_length(parameters: dict[str, Any], config: Given) -> None:
    """The trained length: the config's own, else that of the parameters, else the longest."""
    if ORIGINAL in parameters:
        read_length(parameters, ORIGINAL)
    if config.get(ORIGINAL) is not None:
        parameters[ORIGINAL] = config[ORIGINAL]
    parameters.setdefault(ORIGINAL, config.get("max_position_embeddings"))


def _tell_other_names(given: Given, config: Given, parameters: Given, kind: str) -> list[str]:
    """A line for a key that most layouts read, and this one calls otherwise."""
    return [
        f"warning: {name}={given[name]} in config.json is not read: model_type={kind} calls it "
        f"{next(own for own, plain in FAMILIES[kind].keys.items() if plain == name)}"
        for name in (THETA, PART)
        if name in given and name not in rename_keys(given) and given[name] != parameters.get(name, config.get(name))
    ]


def _mapping(config: Given, key: str) -> dict[str, Any] | None:
    value = config.get(key)
    if value is not None and not isinstance(value, Mapping):
        raise ConfigError(f"{key}={value!r} in config.json is no object with a rope_type; repair the file")
    return None if value is None else dict(value)


def _tell_both(old: Given, new: Given, config: Given, kind: str) -> list[str]:
    """A line where both forms are there and say different things; null says nothing."""
    theta = config.get(THETA, _default_base(kind))
    forms = []
    for form in (old, new):
        values = {THETA: theta} | {name: value for name, value in form.items() if name != "type" and value is not None}
        forms.append(values | {"rope_type": form.get("rope_type", form.get("type", "default"))})
    names = dict.fromkeys((*forms[0], *forms[1]))
    return _tell_forms(forms[0], forms[1], [name for name in names if forms[0].get(name) != forms[1].get(name)])


def _tell_mixed(old: Given, new: Given) -> list[str]:
    """The same where the older form replaces what it says, and leaves the rest."""
    return _tell_forms(old, new, [name for name in old if new.get(name) not in (None, old[name])])


def _tell_forms(old: Given, new: Given, different: list[str]) -> list[str]:
    if not different:
        return []
    first, second = (", ".join(describe_value(name, form) for name in different) for form in (old, new))
    return [
        f"warning: {OLD} ({first}) and {NEW} ({second}) in config.json disagree; {OLD} is used, as in transformers 5"
    ]


def describe_value(name: str, values: Given) -> str:
    """A key and its value; a list by its length, what is not there as such."""
    value = values.get(name)
    if value is None:
        return f"no {name}"
    return f"{name}={f'{len(value)} numbers' if isinstance(value, list) else value}"


def _tell_loser(winner: str, value: Any, loser: str, other: Any) -> list[str]:
    """A line where a key is not read because another one stands for it and differs."""
    if value is None or other is None or value == other:
        return []
    return [
        f"warning: {winner}={value} and {loser}={other} in config.json disagree; {winner} is used, as in transformers 5"
    ]
