"""`config.static` is the config package's own affair, and no module of the package needs itself through another."""

from __future__ import annotations

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "src" / "aptlab"
CONFIG = PACKAGE / "config"


def read_imports(path: Path) -> set[str]:
    """Dotted names that a file imports, in functions and under TYPE_CHECKING too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


OUTSIDE = [path for path in sorted(PACKAGE.rglob("*.py")) if CONFIG not in path.parents]


def test_nobody_outside_reads_source_by_itself():
    assert len(OUTSIDE) > 100
    readers = {
        path: [name for name in read_imports(path) if name.startswith("aptlab.config.static")] for path in OUTSIDE
    }
    assert {str(path): names for path, names in readers.items() if names} == {}


def test_the_config_package_has_no_circle():
    files = {
        ".".join(("aptlab", *path.relative_to(PACKAGE).with_suffix("").parts)): path for path in CONFIG.rglob("*.py")
    }
    arrows = {name: read_imports(path) & files.keys() - {name} for name, path in files.items()}
    while arrows:
        free = [name for name, needs in arrows.items() if not needs & arrows.keys()]
        assert free, f"a circle among {sorted(arrows)}"
        for name in free:
            del arrows[name]
