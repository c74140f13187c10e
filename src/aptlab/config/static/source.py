"""Python source looked at without being imported: which file holds a dotted name, what a module defines.

Only the top package is located through the import system (that imports nothing); below it, files are
found by name and read with `ast`.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

DEPTH = 12  # longest chain of re-exports that is followed

Statement = ast.stmt
Definition = ast.ClassDef | ast.FunctionDef


@dataclass(frozen=True)
class SourceDefinition:
    """A class, function or alias, and the module whose names its annotations use."""

    module: SourceModule
    node: Definition | ast.expr


class SourceModule:
    """One parsed file: `names` maps each top-level name to the last statement that binds it."""

    def __init__(self, name: str, path: Path) -> None:
        self.name, self.path = name, path
        self.package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        self.tree = ast.parse(path.read_bytes())
        self.names: dict[str, Statement] = {}
        self.stars: list[str] = []
        for statement in walk_top_level(self.tree.body):
            for bound in _bound(statement):
                self.names[bound] = statement
            if isinstance(statement, ast.ImportFrom) and any(alias.name == "*" for alias in statement.names):
                self.stars.append(self.origin(statement))

    @classmethod
    def empty(cls) -> SourceModule:
        """A module that defines nothing."""
        module = cls.__new__(cls)
        module.name = module.package = ""
        module.path, module.tree = Path(), ast.Module(body=[], type_ignores=[])
        module.names, module.stars = {}, []
        return module

    def origin(self, statement: ast.ImportFrom) -> str:
        """The absolute module that `from … import` names."""
        if not statement.level:
            return statement.module or ""
        parts = self.package.split(".")
        base = parts[: len(parts) - statement.level + 1]
        return ".".join([*base, statement.module] if statement.module else base)

    def lazy(self) -> dict[str, str]:
        """Names a PEP 562 `__getattr__` serves from a module-level dict: name -> module or module:name."""
        if "__getattr__" not in self.names:
            return {}
        found: dict[str, str] = {}
        for statement in self.tree.body:
            value = getattr(statement, "value", None)
            if isinstance(value, ast.Dict):
                found |= {
                    str(key.value): text
                    for key, item in zip(value.keys, value.values, strict=True)
                    if isinstance(key, ast.Constant) and (text := _dotted_text(item))
                }
        return found


def walk_top_level(body: list[Statement]) -> Iterator[Statement]:
    """Statements of a module that may bind its names, those inside if / try / with included."""
    for statement in body:
        yield statement
        if isinstance(statement, ast.If | ast.Try | ast.With):
            for name in ("body", "handlers", "orelse", "finalbody"):
                for inner in getattr(statement, name, []):
                    nested = inner.body if isinstance(inner, ast.ExceptHandler) else [inner]
                    yield from walk_top_level(nested)


@functools.cache
def parse_module(name: str) -> SourceModule | None:
    """The module of that dotted name, or None when there is no such file."""
    path = None if name.partition(".")[0] in sys.stdlib_module_names else find_module_file(name)
    try:
        return SourceModule(name, path) if path else None
    except (SyntaxError, ValueError):
        return None


def read_module_docstring(name: str) -> str:
    """The docstring of a module as it is written, "" where there is none."""
    module = parse_module(name)
    return (ast.get_docstring(module.tree, clean=False) or "") if module else ""


@functools.cache
def find_module_file(name: str) -> Path | None:
    """The file of a module, a package's `__init__.py` for a package."""
    top, *rest = name.split(".")
    for root in _roots(top):
        if root.suffix == ".py":
            return root if not rest else None
        base = root.joinpath(*rest)
        for path in (base / "__init__.py", base.with_suffix(".py")):
            if path.is_file() and (rest or path.name == "__init__.py"):
                return path
    return None


@functools.cache
def _roots(top: str) -> tuple[Path, ...]:
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return ()
    if spec is None:
        return ()
    if spec.submodule_search_locations:
        return tuple(Path(folder) for folder in spec.submodule_search_locations)
    return (Path(spec.origin),) if spec.origin and spec.origin.endswith(".py") else ()


def split_target(target: str) -> tuple[SourceModule, list[str]] | None:
    """The longest prefix of a dotted name that is a module, and the rest of the name."""
    parts = target.split(".")
    for length in range(len(parts), 0, -1):
        if module := parse_module(".".join(parts[:length])):
            return module, parts[length:]
    return None


def find_definition(module: SourceModule, name: str, depth: int = 0) -> SourceDefinition | None:
    """The definition behind a name of a module, through re-exports; None where source does not tell."""
    if depth > DEPTH:
        return None
    statement = module.names.get(name)
    if isinstance(statement, ast.ClassDef | ast.FunctionDef):
        return SourceDefinition(module, statement)
    if isinstance(statement, ast.ImportFrom):
        original = next(a.name for a in statement.names if (a.asname or a.name) == name)
        return _from(module.origin(statement), original, depth)
    if isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None:
        return resolve_expression(module, statement.value, depth + 1) or SourceDefinition(module, statement.value)
    if name in (lazy := module.lazy()):
        return _lazy(module, name, lazy[name], depth)
    for origin in module.stars:
        inner = parse_module(origin)
        if inner and (found := find_definition(inner, name, depth + 1)):
            return found
    return None


def resolve_expression(module: SourceModule, expression: ast.expr, depth: int = 0) -> SourceDefinition | None:
    """The definition that a name or a dotted name (`nn.Module`) means in a module."""
    if isinstance(expression, ast.Name):
        return find_definition(module, expression.id, depth)
    if not isinstance(expression, ast.Attribute):
        return None
    text = ast.unparse(expression)
    first, *rest = text.split(".")
    home = _module_of(module, first)
    if home is None or not all(part.isidentifier() for part in rest):
        return None
    located = split_target(".".join([home, *rest]))
    if located is None or len(located[1]) != 1:
        return None
    return find_definition(located[0], located[1][0], depth + 1)


def _module_of(module: SourceModule, name: str) -> str | None:
    """The module that an imported name means."""
    statement = module.names.get(name)
    if isinstance(statement, ast.Import):
        for alias in statement.names:
            if alias.asname == name:
                return alias.name
            if alias.asname is None and alias.name.split(".")[0] == name:
                return name
    if isinstance(statement, ast.ImportFrom):
        original = next(a.name for a in statement.names if (a.asname or a.name) == name)
        full = f"{module.origin(statement)}.{original}"
        return full if find_module_file(full) else None
    return None


def _from(origin: str, name: str, depth: int) -> SourceDefinition | None:
    inner = parse_module(origin)
    return find_definition(inner, name, depth + 1) if inner else None


def _lazy(module: SourceModule, name: str, text: str, depth: int) -> SourceDefinition | None:
    origin, _, attribute = text.partition(":")
    if origin.startswith("."):
        origin = f"{module.package}{origin}"
    for full in (origin, f"{module.package}.{origin}"):
        if find_module_file(full):
            return _from(full, attribute or name, depth)
    origin, _, attribute = origin.rpartition(".")
    return _from(origin, attribute, depth) if origin else None


def _bound(statement: Statement) -> Iterator[str]:
    if isinstance(statement, ast.ClassDef | ast.FunctionDef):
        yield statement.name
    elif isinstance(statement, ast.Import):
        for alias in statement.names:
            yield alias.asname or alias.name.split(".")[0]
    elif isinstance(statement, ast.ImportFrom):
        for alias in statement.names:
            yield alias.asname or alias.name
    elif isinstance(statement, ast.Assign):
        for target in statement.targets:
            if isinstance(target, ast.Name):
                yield target.id
    elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
        yield statement.target.id


def _dotted_text(item: ast.expr | None) -> str | None:
    """ "a.b", or "a.b:c" for the pair ("a.b", "c")."""
    if isinstance(item, ast.Constant) and isinstance(item.value, str):
        return item.value
    if isinstance(item, ast.Tuple) and len(item.elts) == 2:
        texts = [part.value for part in item.elts if isinstance(part, ast.Constant) and isinstance(part.value, str)]
        return ":".join(texts) if len(texts) == 2 else None
    return None
