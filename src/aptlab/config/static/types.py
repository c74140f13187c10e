"""Values against annotations that are known as source only: `factor: Positive | None = None`.

An annotation that is not understood accepts everything; the constructor has the last word.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from aptlab.config.static.signatures import Parameter
from aptlab.config.static.source import SourceModule, find_definition
from aptlab.errors import suggest_option
from aptlab.limits import LIMITS, find_width_problem

SEQUENCES = ("list", "tuple", "Sequence", "Iterable", "Collection", "set", "List", "Tuple")
MAPPINGS = ("dict", "Mapping", "MutableMapping", "Dict")
SCALARS = {"int": int, "float": float, "bool": bool, "str": str, "None": type(None)}
DEPTH = 6  # longest chain of type aliases that is followed
BY_GROUP = "as in rope=yarn"  # the check puts the group in question in its place


def find_value_problem(value: Any, parameter: Parameter) -> str | None:
    """What is wrong with a plain value for this parameter, or None.

    A float takes an int, nothing takes a bool but a bool; a node with a `_target_` fits every class.
    """
    if parameter.annotation is None:
        return None
    members = _members(parameter.annotation, parameter.module)
    if members is None or _is_node(value):
        return None
    found = [_member_problem(value, member, module) for member, module in members]
    if not found or None in found:
        return None
    limited = [text for text in found if text and text.startswith("must be")]
    if limited:
        return limited[0]
    choices = [str(choice) for member, module in members for choice in _choices(member, module)]
    if choices and isinstance(value, str):
        return f"no such value {value!r}{suggest_option(value, choices)}"
    return f"expects {_spoken(members)}, got {value!r}{_hint(value, members)}"


def find_annotation_problem(value: Any, annotation: str) -> str | None:
    """The same for an annotation given as text, for example "PositiveInt | None"."""
    module = SourceModule.empty()
    return find_value_problem(value, Parameter("", module, ast.parse(annotation, mode="eval").body))


def list_parameter_values(parameter: Parameter) -> list[str]:
    """Values that an annotation lists, as YAML has them: those of Literal, true and false of bool, null of None."""
    return _listed(parameter.annotation, parameter.module) if parameter.annotation is not None else []


def _listed(annotation: ast.expr, module: SourceModule, depth: int = 0) -> list[str]:
    found = []
    for part in ast.walk(annotation):
        if isinstance(part, ast.Name) and part.id == "bool":
            found += ["true", "false"]
        elif isinstance(part, ast.Constant):
            found.append("null" if part.value is None else str(part.value))
        elif isinstance(part, ast.Name) and part.id not in LIMITS and depth < DEPTH:
            alias = find_definition(module, part.id)
            if alias is not None and isinstance(alias.node, ast.expr):
                found += _listed(alias.node, alias.module, depth + 1)
    return found


Member = tuple[ast.expr, SourceModule]


def _members(annotation: ast.expr, module: SourceModule, depth: int = 0) -> list[Member] | None:
    """The alternatives of a union, aliases replaced by what they mean; None = anything goes."""
    if depth > DEPTH:
        return None
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return _members(ast.parse(annotation.value, mode="eval").body, module, depth + 1)
    if isinstance(annotation, ast.BinOp) and isinstance(annotation.op, ast.BitOr):
        return _union([annotation.left, annotation.right], module, depth)
    if isinstance(annotation, ast.Subscript):
        name, inner = _name(annotation.value), annotation.slice
        if name == "Union":
            return _union(inner.elts if isinstance(inner, ast.Tuple) else [inner], module, depth)
        if name == "Optional":
            return _union([inner, ast.Constant(None)], module, depth)
        return [(annotation, module)]
    name = _name(annotation)
    if name in SCALARS or name in LIMITS or name in SEQUENCES + MAPPINGS:
        return [(annotation, module)]
    found = find_definition(module, name) if isinstance(annotation, ast.Name) else None
    if found is None:
        return None
    if isinstance(found.node, ast.ClassDef):
        return [(annotation, module)] if found.module.name.startswith("aptlab.") else None
    return _members(found.node, found.module, depth + 1) if isinstance(found.node, ast.expr) else None


def _union(parts: list[ast.expr], module: SourceModule, depth: int) -> list[Member] | None:
    members: list[Member] = []
    for part in parts:
        inner = _members(part, module, depth + 1)
        if inner is None:
            return None
        members += inner
    return members


def _name(expression: ast.expr) -> str:
    return ast.unparse(expression).rpartition(".")[2]


def _member_problem(value: Any, member: ast.expr, module: SourceModule) -> str | None:
    """None if the value fits this one alternative."""
    if isinstance(member, ast.Subscript):
        return _generic_problem(value, member, module)
    name = _name(member)
    if name in LIMITS:
        kind, limit = LIMITS[name]
        return limit.problem(value) if _is(value, kind) else "wrong type"
    if name in SCALARS:
        return find_width_problem(value) if _is(value, SCALARS[name]) else "wrong type"
    if name in SEQUENCES:
        return None if isinstance(value, list | tuple) else "wrong type"
    if name in MAPPINGS:
        return None if isinstance(value, Mapping) else "wrong type"
    return "wrong type"  # a class of aptlab: only a node with a _target_ makes one


def _generic_problem(value: Any, member: ast.Subscript, module: SourceModule) -> str | None:
    name = _name(member.value)
    if name == "Literal":
        fits = any(value == item and type(value) is type(item) for item in _choices(member, module))
        return None if fits else "other"
    if name == "Callable":
        return "wrong type" if isinstance(value, str | int | float | list) else None
    if name in MAPPINGS:
        return None if isinstance(value, Mapping) else "wrong type"
    if name not in SEQUENCES:
        return None
    if not isinstance(value, list | tuple):
        return "wrong type"
    elements = member.slice.elts if isinstance(member.slice, ast.Tuple) else [member.slice]
    if name in ("tuple", "Tuple") and ast.unparse(elements[-1]) != "...":
        return None if len(value) == len(elements) else "wrong length"
    element = elements[0]
    problems = [find_value_problem(item, Parameter("", module, element)) for item in value]
    return next((text for text in problems if text), None)


def _choices(member: ast.expr, module: SourceModule) -> list[Any]:
    if not (isinstance(member, ast.Subscript) and _name(member.value) == "Literal"):
        return []
    items = member.slice.elts if isinstance(member.slice, ast.Tuple) else [member.slice]
    return [item.value for item in items if isinstance(item, ast.Constant)]


def _is(value: Any, kind: type) -> bool:
    if isinstance(value, bool):
        return kind is bool
    if kind is float:
        return isinstance(value, int | float)
    return isinstance(value, kind)


def _is_node(value: Any) -> bool:
    return isinstance(value, Mapping) and "_target_" in value


def _spoken(members: list[Member]) -> str:
    """Types as a user says them: limits by their number type, sequences as lists, None as null."""
    return " or ".join(dict.fromkeys(_said(member) for member, _ in members))


def _said(member: ast.expr) -> str:
    if isinstance(member, ast.Subscript):
        if _name(member.value) not in SEQUENCES:
            return ast.unparse(member)
        inner = member.slice.elts if isinstance(member.slice, ast.Tuple) else [member.slice]
        if _name(member.value) == "tuple" and ast.unparse(inner[-1]) != "...":
            return f"[{', '.join(_said(part) for part in inner)}]"
        name = _name(inner[0])
        return f"a list of {name if name not in LIMITS else f'{LIMITS[name][0].__name__} {LIMITS[name][1]}'}"
    name = _name(member)
    return "null" if name == "None" else LIMITS[name][0].__name__ if name in LIMITS else name


def _hint(value: Any, members: list[Member]) -> str:
    """A way out for usual slips."""
    names = {_name(member.value if isinstance(member, ast.Subscript) else member) for member, _ in members}
    kinds = {LIMITS[name][0].__name__ if name in LIMITS else name for name in names}
    if isinstance(value, float) and value.is_integer() and "int" in kinds:
        return f"; write {int(value)}"
    if isinstance(value, int | float) and not isinstance(value, bool) and "str" in kinds:
        return f"; quote it: '\"{value}\"'"
    if isinstance(value, str | int | float) and kinds & set(SEQUENCES):
        return f"; write [{value}]"
    if isinstance(value, str) and not kinds - {"None"} & {*SCALARS, *SEQUENCES, *MAPPINGS, "Literal"}:
        return f"; choose a part by its group, {BY_GROUP}"
    return ""
