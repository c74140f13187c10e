"""Classes and their bases, read from source: who derives from whom, and which methods are left open."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from dataclasses import dataclass

from aptlab.config.static.source import (
    SourceDefinition,
    SourceModule,
    find_definition,
    resolve_expression,
    split_target,
)

BARE_BASES = ("object", "ABC", "abc.ABC", "Protocol", "typing.Protocol", "Generic", "NamedTuple")
# Libraries whose classes derive from nobody else's; their source is large and tells nothing here.
LIBRARIES = ("torch", "lightning", "torchmetrics", "numpy")


@dataclass(frozen=True)
class BaseProblem:
    """Why a class is none of a kind: whether it must derive from the base still, and the methods that it lacks."""

    derive: bool
    missing: tuple[str, ...]


@functools.cache
def find_base_problem(target: str, base: str) -> BaseProblem | None:
    """What keeps a class from being a `base`, or None: nothing does, or source does not tell.

    A class must derive from the base and write every method that the base leaves open (`abc.abstractmethod`). A base
    that is a Protocol asks for its methods alone. Nothing is imported.
    """
    found, base_class = find_class(target), find_class(base)
    if found is None or base_class is None:
        return None
    libraries = frozenset(LIBRARIES) - {base.partition(".")[0]}
    known = list(walk_classes(found, libraries))
    if None in known:
        return None
    chain = [item for item in known if item is not None]
    derived = any(is_same_class(item, base_class) for item in chain)
    if is_protocol(base_class) and not derived:
        written = {name for item in chain for name in _names(item)}
        missing = tuple(name for name in _names(base_class) if not name.startswith("_") and name not in written)
        return BaseProblem(derive=False, missing=missing) if missing else None
    owed = chain if derived else [*chain, *(item for item in walk_classes(base_class, libraries) if item is not None)]
    missing = tuple(sorted(_find_open(owed)))
    return None if derived and not missing else BaseProblem(derive=not derived, missing=missing)


def find_class(target: str) -> SourceDefinition | None:
    """The class behind a dotted name, None where source does not tell."""
    located = split_target(target)
    if located is None or len(located[1]) != 1:
        return None
    found = find_definition(located[0], located[1][0])
    return found if found is not None and isinstance(found.node, ast.ClassDef) else None


def walk_classes(found: SourceDefinition, libraries: frozenset[str]) -> Iterator[SourceDefinition | None]:
    """A class and its bases, each before its own bases; None for one whose source is not found.

    Classes of `libraries` are left out.
    """
    yield found
    for base in _class(found).bases:
        name = base.value if isinstance(base, ast.Subscript) else base
        if ast.unparse(name) in BARE_BASES or _find_package(found.module, name) in libraries:
            continue
        located = resolve_expression(found.module, name)
        if located is None or not isinstance(located.node, ast.ClassDef):
            yield None
        else:
            yield from walk_classes(located, libraries)


def _find_package(module: SourceModule, name: ast.expr) -> str:
    """The top package that a name was imported from, "" for one of the module itself."""
    first = ast.unparse(name).partition(".")[0]
    statement = module.names.get(first)
    if isinstance(statement, ast.ImportFrom):
        return module.origin(statement).partition(".")[0]
    if isinstance(statement, ast.Import):
        return next((alias.name for alias in statement.names if (alias.asname or alias.name) == first), first)
    return ""


def _class(found: SourceDefinition) -> ast.ClassDef:
    assert isinstance(found.node, ast.ClassDef)
    return found.node


def is_protocol(found: SourceDefinition) -> bool:
    """Whether a class is a Protocol: it asks for its methods alone."""
    return any(ast.unparse(item).partition("[")[0].endswith("Protocol") for item in _class(found).bases)


def is_same_class(first: SourceDefinition, second: SourceDefinition) -> bool:
    """Whether two definitions are one class, by whatever names they were found."""
    return (first.module.name, _class(first).name) == (second.module.name, _class(second).name)


def _names(found: SourceDefinition) -> dict[str, bool]:
    """Names that a class body binds, and whether each is abstract."""
    names: dict[str, bool] = {}
    for statement in _class(found).body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            names[statement.name] = any(
                ast.unparse(item).endswith("abstractmethod") for item in statement.decorator_list
            )
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            names[statement.target.id] = False
        elif isinstance(statement, ast.Assign):
            names |= {item.id: False for item in statement.targets if isinstance(item, ast.Name)}
    return names


def _find_open(chain: list[SourceDefinition]) -> set[str]:
    """Names whose first definition along the chain is abstract."""
    first: dict[str, bool] = {}
    for item in chain:
        for name, abstract in _names(item).items():
            first.setdefault(name, abstract)
    return {name for name, abstract in first.items() if abstract}
