"""The house measured: what tests/test_house.py and tests/test_layers.py hold, as one table of a tree or of several.

python benchmarks/house.py                  this tree
python benchmarks/house.py 767477e HEAD     trees of git side by side, into benchmarks/results/house.md
"""

from __future__ import annotations

import argparse
import ast
import statistics
import subprocess
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "house.md"
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
Graph = dict[str, set[str]]


@dataclass(frozen=True)
class House:
    """The package of a tree, parsed once: dotted module names, `aptlab` itself among them, and their syntax trees."""

    package: Path
    paths: dict[str, Path] = field(default_factory=dict)
    trees: dict[str, ast.Module] = field(default_factory=dict)


def read_house(root: Path) -> House:
    """Parse src/aptlab below `root`."""
    house = House(root / "src" / "aptlab")
    for path in sorted(house.package.rglob("*.py")):
        parts = path.relative_to(house.package.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        house.paths[name], house.trees[name] = path, ast.parse(path.read_text(encoding="utf-8"))
    return house


def read_imports(house: House) -> Graph:
    """Which modules each module imports, wherever the import stands: in functions and under TYPE_CHECKING too.

    `from a.b import c` is the module a.b.c if there is one, else a.b.
    """
    graph: Graph = {name: set() for name in house.trees}
    for name, tree in house.trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                graph[name].update(alias.name for alias in node.names if alias.name in house.trees)
            elif isinstance(node, ast.ImportFrom) and node.module in house.trees:
                full = [f"{node.module}.{alias.name}" for alias in node.names]
                graph[name].update(module if module in house.trees else str(node.module) for module in full)
        graph[name].discard(name)
    return graph


def find_circles(graph: Graph) -> list[list[str]]:
    """Groups of nodes that reach each other (strongly connected, Tarjan 1972), each sorted."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    circles: list[list[str]] = []

    def visit(node: str) -> None:
        order[node] = lowest[node] = len(order)
        stack.append(node)
        for target in sorted(graph[node]):
            if target not in order:
                visit(target)
                lowest[node] = min(lowest[node], lowest[target])
            elif target in stack:
                lowest[node] = min(lowest[node], order[target])
        if lowest[node] == order[node]:
            group = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(group) > 1:
                circles.append(sorted(group))

    for node in sorted(graph):
        if node not in order:
            visit(node)
    return sorted(circles)


def read_rooms(house: House) -> Graph:
    """The same between the folders and files directly below the package."""
    rooms: Graph = {}
    for name, targets in read_imports(house).items():
        room = name.split(".")[1] if "." in name else ""
        reached = {target.split(".")[1] for target in targets if "." in target}
        rooms.setdefault(room, set()).update(reached - {room})
    for targets in list(rooms.values()):
        for target in targets:
            rooms.setdefault(target, set())
    return rooms


def find_double_classes(house: House) -> dict[str, list[str]]:
    """Public class names that more than one module defines, with these modules."""
    places: dict[str, list[str]] = {}
    for name, tree in house.trees.items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(name)
    return {name: modules for name, modules in sorted(places.items()) if len(modules) > 1}


def list_public_functions(tree: ast.Module) -> list[str]:
    """Names of the functions that a module defines for others."""
    return [node.name for node in tree.body if isinstance(node, FUNCTIONS) and not node.name.startswith("_")]


def measure_one_word_share(house: House) -> float:
    """Share of public functions of a module, the package over, whose name is one word: a verb without its object."""
    names = [name for tree in house.trees.values() for name in list_public_functions(tree)]
    return sum("_" not in name for name in names) / len(names)


def list_undocumented(house: House, room: str) -> Iterator[str]:
    """Public functions and methods of a room that have no docstring, as module:name or module:Class.name."""
    for name, tree in house.trees.items():
        if f"{name}.".startswith(f"aptlab.{room}."):
            yield from (f"{name}:{found}" for found in _undocumented(tree.body, ""))


def _undocumented(body: list[ast.stmt], prefix: str) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from _undocumented(node.body, f"{node.name}.")
        elif isinstance(node, FUNCTIONS) and not node.name.startswith("_") and not ast.get_docstring(node):
            yield f"{prefix}{node.name}"


def count_lines(house: House, room: str = "") -> dict[str, int]:
    """Lines of each file of a room, or of the package, by its path in it."""
    below = house.package / room
    return {
        str(path.relative_to(house.package)): len(path.read_text(encoding="utf-8").splitlines())
        for path in house.paths.values()
        if path.is_relative_to(below)
    }


def measure_house(root: Path) -> dict[str, str]:
    """One column of the table: what is measured, and its value."""
    house = read_house(root)
    lines, commands = count_lines(house), count_lines(house, "commands")
    circles, rooms = find_circles(read_imports(house)), find_circles(read_rooms(house))
    return {
        "files": f"{len(lines)}",
        "lines": f"{sum(lines.values()):,}",
        "median file, lines": f"{statistics.median(lines.values()):g}",
        "largest file, lines": f"{max(lines.values())}",
        "lines in commands": f"{sum(commands.values()):,}",
        "largest file of commands, lines": f"{max(commands.values())}",
        "circles of modules": f"{len(circles)} ({sum(map(len, circles))} modules)",
        "circles of rooms": f"{len(rooms)} ({sum(map(len, rooms))} rooms)",
        "public class names defined twice": f"{len(find_double_classes(house))}",
        "public functions of one word": f"{measure_one_word_share(house):.0%}",
        "public functions and methods of nn without a docstring": f"{len(list(list_undocumented(house, 'nn')))}",
    }


def unpack_tree(commit: str, folder: Path) -> Path:
    """The src folder of a commit, written below `folder`."""
    packed = subprocess.run(["git", "archive", commit, "src"], cwd=ROOT, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")
    return folder


def format_house(columns: dict[str, dict[str, str]]) -> str:
    """One markdown table, a column per tree."""
    rows = list(next(iter(columns.values())))
    lines = [f"| | {' | '.join(columns)} |", f"|---|{'--:|' * len(columns)}"]
    lines += [f"| {row} | {' | '.join(column[row] for column in columns.values())} |" for row in rows]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commits", nargs="*", help="commits to measure; none = the working tree")
    commits = parser.parse_args().commits
    if not commits:
        print(format_house({"this tree": measure_house(ROOT)}))
        print_details(read_house(ROOT))
        return
    columns = {}
    for commit in commits:
        with tempfile.TemporaryDirectory() as folder:
            columns[commit] = measure_house(unpack_tree(commit, Path(folder)))
    table = format_house(columns)
    RESULT.write_text(f"{INTRO.format(commits=' '.join(commits))}\n{table}\n", encoding="utf-8")
    print(table)


INTRO = """# The house, measured

`python benchmarks/house.py {commits}`. Imports in functions and under TYPE_CHECKING count; `from room import name`
is an import of the room's `__init__` where `name` is no module of it. tests/test_house.py holds most of these numbers.
"""


def print_details(house: House) -> None:
    """What stands behind the counts of the working tree."""
    for circle in find_circles(read_imports(house)):
        print("circle of modules:", " ".join(circle))
    for circle in find_circles(read_rooms(house)):
        print("circle of rooms:", " ".join(circle))
    for name, modules in find_double_classes(house).items():
        print(f"defined twice: {name} in {' '.join(modules)}")
    silent = Counter(found.partition(":")[0] for found in list_undocumented(house, "nn"))
    for name, count in sorted(silent.items()):
        print(f"without a docstring: {count} in {name}")


if __name__ == "__main__":
    main()
