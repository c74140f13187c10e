"""Findings are scripts that stand alone: pinned, cleaned up, listed; what they find is seen by running them."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "findings"
SCRIPTS = sorted(FOLDER.glob("*.sh"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_finding_is_a_script_that_stands_alone(path):
    text = path.read_text()
    assert os.access(path, os.X_OK)
    assert len(text.splitlines()) <= 50
    assert "\nset -euo pipefail\n" in text
    assert "\ntrap 'rm -rf \"$dir\"' EXIT\n" in text
    assert re.findall(r"\b(?:import|from) aptlab", text) == []
    (packages,) = re.findall(r"pip\" install -qq (.*)", text)
    assert all(re.fullmatch(r"[\w-]+==[\d.]+", package) for package in packages.split())
    subprocess.run(["bash", "-n", str(path)], check=True)


def test_the_readme_lists_every_finding():
    assert sorted(set(re.findall(r"\]\((\w+\.sh)\)", (FOLDER / "README.md").read_text()))) == [p.name for p in SCRIPTS]


def test_a_finding_that_a_comment_names_exists():
    sources = [path for folder in ("src", "tests", "docs") for path in (ROOT / folder).rglob("*.*") if path.is_file()]
    text = "\n".join(path.read_text() for path in sources if path.suffix in (".py", ".md"))
    named = set(re.findall(r"findings/(\w+\.sh)", text))
    assert named
    assert named <= {path.name for path in SCRIPTS}
