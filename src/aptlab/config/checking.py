"""Every problem of a composed configuration at once, before torch is imported and anything is built."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from aptlab.config.bases import find_empty_options, read_group_bases
from aptlab.config.building import build_plain
from aptlab.config.composing import Config, describe_config_error, find_typed_key, read_plain_tree
from aptlab.config.node_path import NodePath, follow_slots
from aptlab.config.renamed import find_renamed_problem, find_target_rename
from aptlab.config.requests import find_root_key_problem
from aptlab.config.search_path import OptionIndex
from aptlab.config.shortcuts import write_typed_key
from aptlab.config.slots import RESERVED, Slot, find_kind_problem, name_listed, walk_slots
from aptlab.config.static import types
from aptlab.config.static.signatures import Signature, is_rule, read_signature
from aptlab.config.suggestions import find_listed, find_possible
from aptlab.config.trust import find_target_problem, list_trusted_prefixes, walk_target_nodes
from aptlab.errors import AptlabError, ConfigError, suggest_option


def check(config: Config, *, more: Iterable[str] = ()) -> None:
    """Raise one ConfigError that lists all problems, one `key: problem` a line.

    Names and values are compared with signatures read from source. When these agree, rules (frozen
    dataclasses whose module loads no torch) are built, so that what they demand of several values at
    once (heads that divide the width) is also known here. `more` are problems that the command itself has found.
    """
    found = [*find_config_problems(config), *more] or list(_rule_problems(config))
    if found:
        raise ConfigError("\n".join(["the config has problems:", *dict.fromkeys(found)]))


def find_config_problems(config: Config) -> Iterator[str]:
    """`key: problem` for everything that names, types, limits and the trust list tell."""

    raw = read_plain_tree(config.cfg)
    unresolved, values = _resolve(config.cfg, raw, "")
    found = [
        (f"{key}: {text}", "")
        for key, value in values.items()
        if not isinstance(value, _Taken | _Unknown) and (text := find_root_key_problem(config.command, key, value))
    ]
    found += [(problem, "") for problem in find_empty_options(values, config.choices, config.library)]
    scope = CheckScope(list_trusted_prefixes(), config.library, values)
    for node, slot in walk_slots(values, Slot("", read_group_bases())):
        found += _place_problems(node, slot, scope)
    yield from unresolved
    keys = {text.partition(":")[0] for text, taken_from in found if not taken_from}
    yield from (text for text, taken_from in found if taken_from not in keys)


class _Taken:
    """A value taken from elsewhere, as in `rope: ${rope}`: what is wrong with it is told there, once."""

    def __init__(self, value: Any, origin: str) -> None:
        self.value, self.origin = value, origin


class _Unknown:
    """A value that could not be resolved, or is missing; reported once already."""


def _resolve(cfg: Any, raw: Any, path: str) -> tuple[list[str], Any]:
    """The values with interpolations filled in, and a problem for each that cannot be."""
    if isinstance(raw, dict | list):
        found: list[str] = []
        items = raw.items() if isinstance(raw, dict) else enumerate(raw)
        values = {}
        for key, value in items:
            inner, values[key] = _resolve(cfg, value, f"{path}.{key}" if path else str(key))
            found += inner
        return found, values if isinstance(raw, dict) else list(values.values())
    if raw == "???":
        key = find_typed_key(cfg, path)
        return [f"{key}: a value is needed; set {key}=<value>"], _Unknown()
    if not (isinstance(raw, str) and "${" in raw):
        return [], raw
    return _resolve_one(cfg, raw, path)


def _resolve_one(cfg: Any, raw: str, path: str) -> tuple[list[str], Any]:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        value = OmegaConf.select(cfg, path, throw_on_missing=True)
        plain = value if not OmegaConf.is_config(value) else OmegaConf.to_container(value, resolve=False)
        return [], _Taken(plain, raw.strip("${}"))
    except OmegaConfBaseException as error:
        if type(error).__name__ in ("MissingMandatoryValue", "InterpolationToMissingValueError"):
            return [], _Unknown()  # reported where it is missing
        return [f"{path}: {describe_config_error(error).removeprefix(f'{path}: ')}"], _Unknown()


Problem = tuple[str, str]  # the line, and the key the value was taken from (or "")


@dataclass(frozen=True)
class CheckScope:
    """What the check of one node may look at: prefixes that are trusted, all options, the whole configuration."""

    prefixes: tuple[str, ...]
    library: OptionIndex
    values: dict[str, Any]


def _place_problems(node: Any, slot: Slot, scope: CheckScope) -> list[Problem]:
    """What is wrong with a node in its place. One taken from elsewhere must be of the kind; the rest is told there."""
    if isinstance(node, _Taken):
        named = isinstance(node.value, dict) and "_target_" in node.value
        parts = [(node.value, slot)] if named else list(walk_slots(node.value, slot))
        found = [(place.path, _kind_problem(part, place)) for part, place in parts]
        return [(f"{path}: {text}", node.origin) for path, text in found if text]
    if not isinstance(node, dict):
        return []
    named = list(_name_problems(slot.path, node, scope))
    if not named and (text := _kind_problem(node, slot)):  # then its parameters are of no interest
        return [(f"{slot.path}: {text}", "")]
    problems = named or list(_parameter_problems(slot.path, node, scope))
    return [(f"{line}{name_listed(slot)}" if " is not trusted" in line else line, key) for line, key in problems]


def _kind_problem(node: Any, slot: Slot) -> str | None:
    target = node.get("_target_") if isinstance(node, dict) else None
    return find_kind_problem(target, slot) if isinstance(target, str) else None


def _name_problems(path: str, node: dict[str, Any], scope: CheckScope) -> Iterator[Problem]:
    """What is wrong with the name of a class."""
    target = node["_target_"]
    if isinstance(target, _Unknown):
        return
    if renamed := find_target_rename(target):
        yield f"{path}._target_: {renamed}", ""
        return
    if refused := find_target_problem(target, scope.prefixes):
        yield f"{path}: {refused}", ""
        return
    try:
        read_signature(target)
    except ConfigError as error:
        yield f"{path}._target_: {error}", ""


def _parameter_problems(path: str, node: dict[str, Any], scope: CheckScope) -> Iterator[Problem]:
    """What is wrong with the parameters that a node gives to its class."""
    target = node["_target_"]
    known = read_signature(target) if isinstance(target, str) else None
    if known is None:
        return
    for name, value in node.items():
        if name in RESERVED or isinstance(value, _Unknown):
            continue
        if name in known.parameters:
            if problem := _value_problem(value, name, known, scope.library):
                key = write_typed_key(f"{path}.{name}", target)
                yield f"{key}: {problem}", value.origin if isinstance(value, _Taken) else ""
        elif not known.open:
            yield f"{path}.{name}: {_no_such_parameter(name, known, path, node, scope)}", ""
    if not node.get("_partial_") and "_args_" not in node:
        needed = [item.name for item in known.parameters.values() if item.required and item.name not in node]
        keys = [write_typed_key(f"{path}.{name}", target) for name in needed]
        yield from ((f"{key}: {target} needs a value; set {key}=<value>", "") for key in keys)


def _value_problem(value: Any, name: str, known: Signature, library: OptionIndex) -> str | None:
    if isinstance(value, _Taken):
        if value.value is None:  # null here means "filled in by the command", as in vocab: ${vocab}
            return None
        value = value.value
    plain, texts = _fill_in(value)
    problem = types.find_value_problem(plain, known.parameters[name])
    problem = problem and problem + "".join(f"; {name}.{key} is ${{{text}}}" for key, text in texts)
    if problem is None or types.BY_GROUP not in problem or name not in library.groups:
        return problem
    option = str(value) if str(value) in library.groups[name] else next(iter(library.groups[name]))
    return problem.replace(types.BY_GROUP, f"as in {name}={option}")


def _fill_in(value: Any, key: str = "") -> tuple[Any, list[tuple[str, str]]]:
    """A value with what its interpolations mean, and (key, what stands there) of each: `files=[${a}]` holds one."""
    if isinstance(value, _Taken):
        return value.value, [(key, value.origin)]
    if not isinstance(value, list | dict) or (isinstance(value, dict) and "_target_" in value):
        return value, []
    items = value.items() if isinstance(value, dict) else enumerate(value)
    filled = {number: _fill_in(item, f"{key}.{number}".lstrip(".")) for number, item in items}
    found = [text for _, texts in filled.values() for text in texts]
    plain = {number: item for number, (item, _) in filled.items()}
    return (plain if isinstance(value, dict) else list(plain.values())), found


def _no_such_parameter(name: str, known: Signature, path: str, node: dict[str, Any], scope: CheckScope) -> str:
    """The message, with the part inside that has it, the nearest parameter, or the group's options that have one."""
    if renamed := find_renamed_problem(f"{path}.{name}"):
        return renamed.removeprefix(f"{path}.{name}: ")
    text = f"{known.target} has no such parameter"
    parts = [key for key, part in node.items() if isinstance(part, dict) and "_target_" in part and name in part]
    if len(parts) == 1:
        return f"{text}; did you mean {path}.{parts[0]}.{name}?"
    others = [option.name for option in scope.library.groups.get(path, {}).values() if _has_key(option.path, name)]
    if not others and (place := find_listed(name, scope.values, scope.values, skip=f"{path}.{name}")):
        return f"{text}; {place}"
    near = suggest_option(name, known.parameters)
    if "did you mean" in near:
        return text + near
    listed = ", ".join(known.parameters) or "no parameters"
    if others:
        return f"{text}; it takes {listed}; {path} options with it: {', '.join(others)}"
    place = find_possible(name, scope.values, scope.values, scope.library)
    return f"{text}; {place}" if place else f"{text}; it takes {listed}"


def _has_key(path: Any, key: str) -> bool:
    return any(line.startswith(f"{key}:") for line in path.read_text(encoding="utf-8").splitlines())


def _rule_problems(config: Config) -> Iterator[str]:
    """What rules say when they are built; a rule may hold other rules, and is built once for all slots it stands in."""

    plain, tree = config.resolved(), read_plain_tree(config.cfg)
    done: set[str] = set()
    for path, node in sorted(walk_target_nodes(plain), key=lambda item: item[0].count(".")):
        inner = list(walk_target_nodes(node, path))
        keys = {follow_slots(tree, part) for part, _ in inner}
        if keys <= done or node.get("_partial_") or not all(is_rule(part["_target_"]) for _, part in inner):
            continue
        done |= keys
        try:
            build_plain(node, NodePath(path, tree))
        except AptlabError as error:
            yield str(error)
