"""What a `_target_` takes, read from its source: names, annotations, defaults. Nothing is imported."""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from aptlab.config.static.source import (
    SourceDefinition,
    SourceModule,
    find_definition,
    find_module_file,
    resolve_expression,
    split_target,
)
from aptlab.errors import ConfigError, suggest_option

OURS = "aptlab."
BARE_BASES = ("object", "ABC", "abc.ABC", "Protocol", "Generic")


@dataclass(frozen=True)
class Parameter:
    """One parameter; `annotation` and `default` are source, None where there is none."""

    name: str
    module: SourceModule = field(repr=False)
    annotation: ast.expr | None = None
    default: str | None = None
    required: bool = True

    @property
    def type_text(self) -> str:
        return ast.unparse(self.annotation).strip("'\"") if self.annotation else ""


@dataclass(frozen=True)
class Signature:
    """Parameters of a class or function. `open`: takes others too, or the source does not tell."""

    target: str
    parameters: dict[str, Parameter]
    open: bool = False
    doc: str = ""


@functools.cache
def read_signature(target: str) -> Signature | None:
    """The signature behind a dotted name; None where source does not tell (C code, computed names).

    ConfigError when the package or the name is not there, with the nearest name.
    """
    located = split_target(target)
    if located is None:
        raise ConfigError(f"there is no package {target.split('.')[0]}; install it, or correct the name")
    module, rest = located
    if len(rest) != 1:
        return _no_such(module, rest, target)
    found = find_definition(module, rest[0])
    if found is None:
        return _no_such(module, rest, target)
    if isinstance(found.node, ast.ClassDef):
        parameters, is_open = read_class_parameters(found)
        doc = ast.get_docstring(found.node) or ""
        return Signature(target, parameters, is_open, doc)
    if isinstance(found.node, ast.FunctionDef):
        parameters, is_open = _function(found.module, found.node, skip=0)
        return Signature(target, parameters, is_open, ast.get_docstring(found.node) or "")
    return None


def _no_such(module: SourceModule, rest: list[str], target: str) -> Signature | None:
    """None if the name may exist at run time, else a ConfigError that says what the module has."""
    if not rest:
        raise ConfigError(f"{target} is a module; name a class in it{suggest_option('', _public(module))}")
    # A package of ours that loads its names when they are asked for binds each of them for type checkers.
    open_ended = "__getattr__" in module.names and not module.name.startswith(OURS)
    if rest[0] in module.names or rest[0] in module.lazy() or open_ended or module.stars:
        return None
    names = _public(module)
    same = [name for name in names if name.lower() == rest[0].lower()]
    raise ConfigError(f"{module.name} has no {rest[0]}{suggest_option(same[0] if same else rest[0], names)}")


def _public(module: SourceModule) -> list[str]:
    package = module.path.name == "__init__.py"
    kinds = (ast.ClassDef, ast.ImportFrom) if package else ast.ClassDef
    own = {name: node for name, node in module.names.items() if getattr(node, "module", "") != "typing"}
    names = [name for name, node in own.items() if isinstance(node, kinds) and name[0].isupper()]
    inner = [path.stem for path in module.path.parent.iterdir()] if package else []
    return [name for name in names + inner if not name.startswith(("_", "."))]


def read_class_parameters(found: SourceDefinition) -> tuple[dict[str, Parameter], bool]:
    """Fields of a dataclass, or the parameters of the nearest `__init__`; and whether there may be more."""
    assert isinstance(found.node, ast.ClassDef)
    if _dataclass_call(found.node) is not None:
        return _fields(found)
    for statement in found.node.body:
        if isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
            return _function(found.module, statement, skip=1)
    for base in _bases(found):
        if base is None:
            return {}, True
        parameters, is_open = read_class_parameters(base)
        if parameters or is_open:
            return parameters, is_open
    return {}, False


def _bases(found: SourceDefinition) -> Iterator[SourceDefinition | None]:
    """The base classes; None for one whose source is not found."""
    assert isinstance(found.node, ast.ClassDef)
    for base in found.node.bases:
        name = base.value if isinstance(base, ast.Subscript) else base
        if ast.unparse(name) in BARE_BASES:
            continue
        located = resolve_expression(found.module, name)
        yield located if located and isinstance(located.node, ast.ClassDef) else None


def _fields(found: SourceDefinition) -> tuple[dict[str, Parameter], bool]:
    assert isinstance(found.node, ast.ClassDef)
    fields: dict[str, Parameter] = {}
    is_open = False
    for base in reversed(list(_bases(found))):
        if base is None:
            is_open = True
        elif isinstance(base.node, ast.ClassDef) and _dataclass_call(base.node) is not None:
            inherited, inner_open = _fields(base)
            fields |= inherited
            is_open |= inner_open
    for statement in found.node.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            parameter = _field(found.module, statement.target.id, statement)
            if parameter:
                fields[parameter.name] = parameter
    return fields, is_open


def _field(module: SourceModule, name: str, statement: ast.AnnAssign) -> Parameter | None:
    text = ast.unparse(statement.annotation).strip("'\"")
    if text.startswith(("ClassVar", "typing.ClassVar")) or text.endswith("KW_ONLY"):
        return None
    value, default = statement.value, None
    if isinstance(value, ast.Call) and ast.unparse(value.func) in ("field", "dataclasses.field"):
        arguments = {keyword.arg: keyword.value for keyword in value.keywords}
        if "init" in arguments and ast.unparse(arguments["init"]) == "False":
            return None
        chosen = arguments.get("default") or arguments.get("default_factory")
        default = ast.unparse(chosen) if chosen else None
    elif value is not None:
        default = ast.unparse(value)
    return Parameter(name, module, statement.annotation, default, default is None)


def _function(module: SourceModule, node: ast.FunctionDef, *, skip: int) -> tuple[dict[str, Parameter], bool]:
    args = node.args
    positional = [*args.posonlyargs, *args.args]
    padding: list[ast.expr | None] = [None] * (len(positional) - len(args.defaults))
    defaults = [*padding, *args.defaults]
    pairs = [*zip(positional[skip:], defaults[skip:]), *zip(args.kwonlyargs, args.kw_defaults)]
    parameters = {
        arg.arg: Parameter(
            arg.arg, module, arg.annotation, ast.unparse(default) if default else None, required=default is None
        )
        for arg, default in pairs
    }
    return parameters, args.kwarg is not None


def _dataclass_call(node: ast.ClassDef) -> ast.expr | None:
    for decorator in node.decorator_list:
        call = decorator.func if isinstance(decorator, ast.Call) else decorator
        if ast.unparse(call) in ("dataclass", "dataclasses.dataclass"):
            return decorator
    return None


@functools.cache
def is_rule(target: str) -> bool:
    """Whether a target is a frozen dataclass in a module that loads no torch, so that a check can build it."""
    located = split_target(target)
    found = find_definition(located[0], located[1][0]) if located and len(located[1]) == 1 else None
    if found is None or not isinstance(found.node, ast.ClassDef):
        return False
    decorator = _dataclass_call(found.node)
    frozen = isinstance(decorator, ast.Call) and any(
        keyword.arg == "frozen" and ast.unparse(keyword.value) == "True" for keyword in decorator.keywords
    )
    return frozen and is_torch_free(found.module.name) and is_torch_free(target.rpartition(".")[0])


@functools.cache
def is_torch_free(name: str) -> bool:
    """Whether importing a module loads only its own package, aptlab and the standard library, and so no torch."""
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        module_name = waiting.pop()
        parts = module_name.split(".")
        for full in (".".join(parts[:length]) for length in range(1, len(parts) + 1)):
            top = full.split(".")[0]
            if top in sys.stdlib_module_names or full in seen:
                continue
            if top not in ("aptlab", name.split(".")[0]):
                return False
            seen.add(full)
            if path := find_module_file(full):
                waiting += _imports(path, full)
    return True


_IMPORT = re.compile(r"^(?:from\s+(\S+)\s+import\s+(\([^)]*\)|.*)|import\s+(.*))$", re.MULTILINE)


@functools.cache  # most rules share most of what they import
def _imports(path: Path, name: str) -> tuple[str, ...]:
    """Modules that a file imports, from lines that begin with an import: to parse it takes far longer."""
    found: list[str] = []
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for origin, names, plain in _IMPORT.findall(path.read_text(encoding="utf-8")):
        base = importlib.util.resolve_name(origin, package) if origin else ""
        words = re.findall(r"([\w.]+)(?:\s+as\s+\w+)?", (names or plain).partition("#")[0])
        found += [f"{base}.{word}" if base else word for word in words]
    return tuple(found)
