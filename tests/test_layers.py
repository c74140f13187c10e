"""Imports go downward: a file may import its own row and the rows below it, and nothing goes in circles."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from benchmarks.house import find_circles, read_house, read_imports, read_rooms

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "aptlab"
ROWS = (  # from the bottom to the top; rooms that are still to come have their place already
    "errors limits redact faults bounded lazy shown extensions version",
    "ops context",
    "nn",
    "quant",
    "models",
    "data curriculum continual objectives optim sample device checkpoint runs",
    "tasks callbacks loggers",
    "restore report",
    "evals",
    "training sweep search stability",
    "serve plugins",
    "commands",
    "api",
    "cli __main__ testing",
)
LEVEL = {name: level for level, row in enumerate(ROWS) for name in row.split()} | {"config": 0, "": 0}
ABOVE_CONFIG = ("config", *(name for row in ROWS if LEVEL[row.split()[0]] >= LEVEL["restore"] for name in row.split()))
APART = (("tasks", "callbacks"), ("callbacks", "tasks"), ("context", "ops"), ("ops", "context"))
FILES = sorted(PACKAGE.rglob("*.py"))
KNOWN_CIRCLES: list[list[str]] = []  # none


def imported(path: Path) -> list[str]:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    return names + [
        f"{node.module}.{alias.name}" for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names
    ]


def find_upward_imports(path: Path) -> Iterator[str]:
    """What this file imports from a room that is not below its own."""
    room = path.relative_to(PACKAGE).with_suffix("").parts[0]
    room = "" if room == "__init__" else room
    for name in imported(path):
        top, *rest = name.split(".")
        if top in ("hydra", "omegaconf"):
            allowed = room == "config"  # alone
        # aptlab/__init__.py names what any room gives, and loads none of it: see the last test.
        elif top == "aptlab" and rest and rest[0] in LEVEL and room != "":
            allowed = (
                (LEVEL[rest[0]] <= LEVEL[room] or room == "config")
                and (rest[0] != "config" or room in ABOVE_CONFIG)
                and (room != "config" or LEVEL[rest[0]] == 0)
                and (room, rest[0]) not in APART
            )
        else:
            allowed = True
        if not allowed:
            yield f"{path.relative_to(PACKAGE)} imports {name}"


def test_imports_go_downward():
    assert len(FILES) > 100
    assert [found for path in FILES for found in find_upward_imports(path)] == []


@pytest.mark.parametrize(
    ("room", "line"),
    [
        ("ops", "import aptlab.nn.norm"),
        ("nn", "from aptlab.config import build"),
        ("nn", "def f():\n    import omegaconf"),
        ("config", "from aptlab.training import plan"),
        ("tasks", "from aptlab.callbacks import stop"),
    ],
)
def test_an_import_that_goes_upward_is_found(room, line, tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "PACKAGE", tmp_path)
    path = tmp_path / room / "one.py"
    path.parent.mkdir()
    path.write_text(line + "\nimport torch\nimport aptlab.errors\n")
    assert len(list(find_upward_imports(path))) == 1


def test_every_room_has_its_row():
    assert {path.relative_to(PACKAGE).with_suffix("").parts[0] for path in FILES} - {"__init__"} <= set(LEVEL)


def test_no_module_imports_itself_through_others():
    """Imports in functions and under TYPE_CHECKING count: they hide a knot, they do not cut it."""
    assert find_circles(read_imports(read_house(ROOT))) == KNOWN_CIRCLES


def test_no_room_imports_itself_through_others():
    assert find_circles(read_rooms(read_house(ROOT))) == []


def test_a_circle_is_found_wherever_its_imports_stand(tmp_path):
    room = tmp_path / "src" / "aptlab" / "ops"
    room.mkdir(parents=True)
    for folder in (room, room.parent):
        (folder / "__init__.py").write_text("")
    (room / "one.py").write_text("if TYPE_CHECKING:\n    from aptlab.ops.two import f\n")
    (room / "two.py").write_text("def f():\n    from aptlab.ops import three\n")
    (room / "three.py").write_text("import aptlab.ops.one\n")
    (room / "four.py").write_text("from aptlab.ops import one\n")
    assert find_circles(read_imports(read_house(tmp_path))) == [
        ["aptlab.ops.one", "aptlab.ops.three", "aptlab.ops.two"]
    ]


def test_tasks_and_callbacks_do_not_import_each_other():
    """They speak through `objectives.StepState`, which a task owns and callbacks read and write."""
    for room, other in (("tasks", "callbacks"), ("callbacks", "tasks")):
        names = [name for path in sorted((PACKAGE / room).glob("*.py")) for name in imported(path)]
        assert names, f"no imports found in {room}"
        assert not [name for name in names if name.split(".")[:2] == ["aptlab", other]]


def test_importing_the_package_imports_no_room():
    code = "import sys, aptlab; print(*[name for name in sys.modules if name.startswith(('aptlab.', 'torch'))])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["aptlab.version"]  # a file of one constant, not a room
