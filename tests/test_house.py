"""Rules of the house that a reader relies on: sizes of files and functions, signatures, first lines of options."""

from __future__ import annotations

import ast
import functools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from benchmarks.house import (
    House,
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
SILENT: dict[str, int] = {}  # public functions and methods of nn without a docstring, by room: none
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@functools.cache
def house() -> House:
    return read_house(ROOT)


@functools.cache
def trees() -> dict[Path, ast.Module]:
    return {path: ast.parse(path.read_text()) for path in SOURCES}


def find_long_files() -> Iterator[str]:
    for path in ALL:
        if (lines := len(path.read_text().splitlines())) > 400:
            yield f"{path} has {lines} lines"


def find_long_functions() -> Iterator[str]:
    for path, tree in trees().items():
        for node in ast.walk(tree):
            # A Triton kernel is one piece: what it calls is pasted in, and a cut costs more words than it saves.
            kernel = isinstance(node, FUNCTIONS) and "triton.jit" in map(ast.unparse, node.decorator_list)
            if isinstance(node, FUNCTIONS) and not kernel:
                documented = ast.get_docstring(node, clean=False)
                body = node.end_lineno - node.body[0].lineno + 1 - (len(documented.splitlines()) if documented else 0)
                if body > 40:
                    yield f"{path}:{node.lineno}: {node.name} has {body} lines of code"


def find_silent_modules() -> Iterator[str]:
    return (str(path) for path, tree in trees().items() if not ast.get_docstring(tree))


def find_wide_constructors() -> Iterator[str]:
    for path, tree in trees().items():
        for node in ast.walk(tree):
            if isinstance(node, FUNCTIONS) and node.name == "__init__":
                if len(node.args.kwonlyargs) > 8:
                    yield f"{path}:{node.lineno} takes {len(node.args.kwonlyargs)} keywords"
                if node.args.kwarg:
                    yield f"{path}:{node.lineno} takes **{node.args.kwarg.arg}"


def find_silent_options() -> Iterator[str]:
    for path in OPTIONS:
        first = path.read_text().splitlines()[0]
        if not first.startswith("# ") or len(first) <= 20:
            yield f"{path} opens with {first!r}, which does not say what it does"


PLAIN = {"int", "float", "str", "bool", "StepState"}


def find_protocols_of_modules() -> Iterator[str]:
    """isinstance with a protocol does not see what torch keeps among a module's submodules, from Python 3.12 on."""
    for path, tree in trees().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and "runtime_checkable" in map(ast.unparse, node.decorator_list):
                members = [one for one in node.body if isinstance(one, ast.AnnAssign)]
                for one in members:
                    if ast.unparse(one.annotation) not in PLAIN:
                        yield f"{path}:{one.lineno} asks at run time for {ast.unparse(one)}"


RULES = {
    "a file has at most 400 lines": find_long_files,
    "a function has at most 40 lines of code": find_long_functions,
    "a module opens with a docstring": find_silent_modules,
    "a constructor takes at most 8 keywords and no open ends": find_wide_constructors,
    "an option opens with a line that says what it does": find_silent_options,
    "a protocol that is asked at run time has no module as a member": find_protocols_of_modules,
}


@pytest.mark.parametrize("rule", RULES)
def test_every_file_keeps_the_rule(rule):
    assert len(ALL) > len(SOURCES) > 100 < len(OPTIONS)
    assert list(RULES[rule]()) == []


def test_a_file_that_breaks_a_rule_is_found(tmp_path, monkeypatch):
    """Every rule, on one file that breaks it."""
    path = tmp_path / "broken.py"
    keywords = ", ".join(f"k{number}=0" for number in range(9))
    protocol = "@runtime_checkable\nclass HasNet(Protocol):\n    net: nn.Module\n"
    path.write_text(f"{protocol}def __init__(self, *, {keywords}, **rest):\n" + "    pass\n" * 400)
    option = tmp_path / "broken.yaml"
    option.write_text("_target_: aptlab.nn.norm.RMSNorm\n")
    here = globals()
    monkeypatch.setitem(here, "ALL", [path])
    monkeypatch.setitem(here, "trees", lambda: {path: ast.parse(path.read_text())})
    monkeypatch.setitem(here, "OPTIONS", [option])
    counts = {rule: len(list(find())) for rule, find in RULES.items()}
    assert counts == dict.fromkeys(RULES, 1) | {"a constructor takes at most 8 keywords and no open ends": 2}


def test_commands_are_thin():
    lines = count_lines(house(), "commands")
    assert sum(lines.values()) <= 1600
    assert {path: count for path, count in lines.items() if count > 150} == {}


def test_no_public_class_name_stands_twice():
    assert find_double_classes(house()) == {}


def test_public_functions_have_a_verb_and_an_object():
    assert measure_one_word_share(house()) < 0.15


def test_public_functions_of_nn_say_what_they_do():
    rooms = [found.partition(":")[0].split(".")[2:] for found in list_undocumented(house(), "nn")]
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
