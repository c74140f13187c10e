"""What an annotation says of a component: which classes a place takes, read from source. Nothing is imported.

`rope: Rope | None` takes a `Rope`, `norm: Callable[..., Norm]` a factory of a `Norm`, `sites: Mapping[str, Site]` a
`Site` under every key, `rules: tuple[Rope, ...]` a list of rules. A number, a text, `Any` and a bare mapping take none.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator

from aptlab.config.static.classes import LIBRARIES, find_class, is_protocol, is_same_class, walk_classes
from aptlab.config.static.source import DEPTH, SourceModule, resolve_expression
from aptlab.config.static.types import MAPPINGS, SEQUENCES

Member = tuple[ast.expr, SourceModule]  # one alternative of an annotation, and the module whose names it uses


def split_annotation(annotation: ast.expr, module: SourceModule, depth: int = 0) -> Iterator[Member]:
    """The alternatives of an annotation: unions taken apart, aliases replaced by what they mean."""
    if depth > DEPTH:
        return
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        yield from split_annotation(ast.parse(annotation.value, mode="eval").body, module, depth + 1)
    elif isinstance(annotation, ast.BinOp) and isinstance(annotation.op, ast.BitOr):
        for part in (annotation.left, annotation.right):
            yield from split_annotation(part, module, depth + 1)
    elif isinstance(annotation, ast.Subscript) and _name(annotation.value) in ("Union", "Optional", "Annotated"):
        parts = _elements(annotation)
        for part in parts[:1] if _name(annotation.value) == "Annotated" else parts:
            yield from split_annotation(part, module, depth + 1)
    else:
        found = resolve_expression(module, annotation)
        if found is not None and isinstance(found.node, ast.expr):
            yield from split_annotation(found.node, found.module, depth + 1)
        else:
            yield annotation, module


@functools.cache
def read_members(annotation: ast.expr, module: SourceModule) -> tuple[Member, ...]:
    """The alternatives of a parameter's annotation."""
    return tuple(split_annotation(annotation, module))


@functools.cache
def list_kinds(members: tuple[Member, ...]) -> tuple[str, ...]:
    """Dotted names of the classes that a node with a `_target_` may be of, at a place with these alternatives."""
    return tuple(dict.fromkeys(_find_kinds(members)))


def _find_kinds(members: tuple[Member, ...]) -> Iterator[str]:
    for annotation, module in members:
        if isinstance(annotation, ast.Subscript):
            name = _name(annotation.value)
            if name == "Callable":  # a factory: what it makes
                yield from _find_kinds(tuple(split_annotation(_elements(annotation)[-1], module)))
                continue
            if name in SEQUENCES + MAPPINGS + ("type", "Type", "Literal"):
                continue
            annotation = annotation.value
        found = resolve_expression(module, annotation)
        if found is not None and isinstance(found.node, ast.ClassDef):
            yield f"{found.module.name}.{found.node.name}"


@functools.cache
def list_item_members(members: tuple[Member, ...]) -> tuple[Member, ...]:
    """The same of what stands inside a list, or under the keys of a mapping, at such a place."""
    inner: list[Member] = []
    for annotation, module in members:
        if isinstance(annotation, ast.Subscript):
            parts, name = _elements(annotation), _name(annotation.value)
            items = parts if name in SEQUENCES else parts[-1:] if name in MAPPINGS else []
            inner += [member for item in items for member in split_annotation(item, module)]
    return tuple(inner)


@functools.cache
def derives_from(target: str, base: str) -> bool | None:
    """Whether a class is `base` or derives from it; None where source does not tell."""
    found, base_class = find_class(target), find_class(base)
    if found is None or base_class is None:
        return None
    undecided = False
    for item in walk_classes(found, frozenset(LIBRARIES) - {base.partition(".")[0]}):
        if item is None:
            undecided = True
        elif is_same_class(item, base_class):
            return True
    return None if undecided else False


@functools.cache
def asks_for_methods_alone(base: str) -> bool:
    """Whether a kind is a Protocol, which a class may satisfy without deriving from it."""
    found = find_class(base)
    return found is not None and is_protocol(found)


def _elements(annotation: ast.Subscript) -> list[ast.expr]:
    inner = annotation.slice
    return list(inner.elts) if isinstance(inner, ast.Tuple) else [inner]


def _name(expression: ast.expr) -> str:
    return ast.unparse(expression).rpartition(".")[2]
