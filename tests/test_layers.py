"""Imports go downward: a file may import its own row and the rows below it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "aptlab"
ROWS = (
    "errors limits redact faults",
    "ops",
    "nn",
    "models",
    "data objectives optim sample device checkpoint runs",
    "tasks callbacks loggers",
    "restore report",
    "evals",
    "training sweep search",
    "commands",
    "api",
    "cli __main__ testing",
)
LEVEL = {name: level for level, row in enumerate(ROWS) for name in row.split()} | {"config": 0, "": 0}
ABOVE_CONFIG = {"config", "restore", "report", "evals", "training", "sweep", "search", "commands", "api"}
ABOVE_CONFIG |= {"cli", "testing"}
FILES = sorted(PACKAGE.rglob("*.py"))


def imported(path: Path) -> list[str]:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    return names + [
        f"{node.module}.{alias.name}" for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_downward(path):
    own = path.relative_to(PACKAGE).with_suffix("").parts[0]
    own = "" if own == "__init__" else own
    for name in imported(path):
        top, *rest = name.split(".")
        if top in ("hydra", "omegaconf"):
            assert own == "config", f"only config imports {top}"
        # aptlab/__init__.py names what any room gives, and loads none of it: the next test.
        elif top == "aptlab" and rest and rest[0] in LEVEL and own != "":
            assert LEVEL[rest[0]] <= LEVEL[own] or own == "config", f"{own} imports {name}"
            assert rest[0] != "config" or own in ABOVE_CONFIG, f"{own} imports {name}"
            assert own != "config" or LEVEL[rest[0]] == 0, f"config imports {name}"


def test_tasks_and_callbacks_do_not_import_each_other():
    """They speak through `objectives.StepState`, which a task owns and callbacks read and write."""
    for own, other in (("tasks", "callbacks"), ("callbacks", "tasks")):
        names = [name for path in sorted((PACKAGE / own).glob("*.py")) for name in imported(path)]
        assert names, f"no imports found in {own}"
        assert not [name for name in names if name.split(".")[:2] == ["aptlab", other]]


def test_importing_the_package_imports_no_room():
    code = "import sys, aptlab; print(*[name for name in sys.modules if name.startswith(('aptlab.', 'torch'))])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
