"""Rules of the house that a reader relies on: sizes of files and functions, signatures, first lines of options."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
ALL = SOURCES + sorted((ROOT / "tests").rglob("*.py")) + sorted((ROOT / "benchmarks").rglob("*.py"))
OPTIONS = sorted((ROOT / "conf").rglob("*.yaml"))
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", ALL, ids=ids)
def test_a_file_has_at_most_400_lines(path):
    assert len(path.read_text().splitlines()) <= 400


@pytest.mark.parametrize("path", SOURCES, ids=ids)
def test_a_function_has_at_most_40_lines_of_code(path):
    for node in ast.walk(ast.parse(path.read_text())):
        # A Triton kernel is one piece: what it calls is pasted in, and a cut costs more words than it saves.
        kernel = isinstance(node, FUNCTIONS) and "triton.jit" in map(ast.unparse, node.decorator_list)
        if isinstance(node, FUNCTIONS) and not kernel:
            documented = ast.get_docstring(node, clean=False)
            body = node.end_lineno - node.body[0].lineno + 1 - (len(documented.splitlines()) if documented else 0)
            assert body <= 40, f"{node.name} has {body} lines"


@pytest.mark.parametrize("path", SOURCES, ids=ids)
def test_a_module_opens_with_a_docstring(path):
    assert ast.get_docstring(ast.parse(path.read_text()))


@pytest.mark.parametrize("path", SOURCES, ids=ids)
def test_a_constructor_takes_at_most_8_keywords_and_no_open_ends(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, FUNCTIONS) and node.name == "__init__":
            assert len(node.args.kwonlyargs) <= 8, f"line {node.lineno}"
            assert node.args.kwarg is None, f"line {node.lineno} takes **{node.args.kwarg.arg}"


@pytest.mark.parametrize("path", OPTIONS, ids=ids)
def test_an_option_opens_with_a_line_that_says_what_it_does(path):
    first = path.read_text().splitlines()[0]
    assert first.startswith("# ")
    assert len(first) > 20
