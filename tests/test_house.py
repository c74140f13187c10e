"""Rules of the house that a reader relies on: sizes of files and functions, signatures, first lines of options."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest
from benchmarks.house import (
    count_lines,
    find_double_classes,
    format_house,
    list_undocumented,
    measure_house,
    measure_one_word_share,
    read_house,
)

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
ALL = SOURCES + sorted((ROOT / "tests").rglob("*.py")) + sorted((ROOT / "benchmarks").rglob("*.py"))
OPTIONS = sorted((ROOT / "conf").rglob("*.yaml"))
HOUSE = read_house(ROOT)
SILENT: dict[str, int] = {}  # public functions and methods of nn without a docstring, by room: none
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


def test_commands_are_thin():
    lines = count_lines(HOUSE, "commands")
    assert sum(lines.values()) <= 1600
    assert {path: count for path, count in lines.items() if count > 150} == {}


def test_no_public_class_name_stands_twice():
    assert find_double_classes(HOUSE) == {}


def test_public_functions_have_a_verb_and_an_object():
    assert measure_one_word_share(HOUSE) < 0.15


def test_public_functions_of_nn_say_what_they_do():
    rooms = [found.partition(":")[0].split(".")[2:] for found in list_undocumented(HOUSE, "nn")]
    counts = Counter(".".join(parts[:2] if parts[0] == "positions" else parts[:1]) for parts in rooms)
    assert counts == SILENT, "write the docstrings, or take their number from the list"


TWO = """
class Twice:
    def silent(self):
        pass

    def spoken(self):
        'It.'


def run():
    'It.'


def build_net():
    'It.'


def _own():
    pass


class _Own:
    def silent(self):
        pass
"""


def test_the_measures_of_the_house_count_what_they_name(tmp_path):
    folder = tmp_path / "src" / "aptlab"
    for room in ("", "commands", "nn"):
        (folder / room).mkdir(parents=True, exist_ok=True)
        (folder / room / "__init__.py").write_text("")
    (folder / "commands" / "one.py").write_text("class Twice:\n    pass\n\n\nclass _Own:\n    pass\n")
    (folder / "nn" / "two.py").write_text(TWO)
    house = read_house(tmp_path)
    assert find_double_classes(house) == {"Twice": ["aptlab.commands.one", "aptlab.nn.two"]}
    assert measure_one_word_share(house) == 0.5
    assert list(list_undocumented(house, "nn")) == ["aptlab.nn.two:Twice.silent"]
    column = measure_house(tmp_path)
    assert (column["files"], column["lines in commands"]) == ("5", "6")
    assert "| lines in commands | 6 | 6 |" in format_house({"before": column, "after": column})
