"""Every example of the API runs: those of the docstrings, of docs/api.md and of the README."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import torch

import aptlab
from tests.commands.small_run import words
from tests.commands.trained import make_run, write_texts

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow
LONG = '"trainer.max_steps=200"'


def run_small(code: str, names: dict[str, Any]) -> dict[str, Any]:
    """The code with its long training made a short one on a text of our own."""
    exec(code.replace(LONG, ", ".join(f"{word!r}" for word in words("data.val_batches=1"))), names)
    return names


def read_blocks(name: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (ROOT / name).read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("name", ["build", "evaluate", "generate", "load", "train"])
def test_the_example_of_a_docstring_runs(name, capsys):
    make_run(Path("outputs"), texts=write_texts(Path("texts.jsonl")))
    doc = inspect.getdoc(getattr(aptlab, name))
    example = dedent(doc.partition("\nExample:\n")[2])
    assert f"aptlab.{name}(" in example
    exec(example, {"aptlab": aptlab, "torch": torch})
    assert name == "load" or capsys.readouterr().out


def test_the_page_runs_from_top_to_bottom(capsys):
    blocks = read_blocks("docs/api.md")
    assert sum(LONG in block for block in blocks) == 1
    names: dict[str, Any] = {}
    for block in blocks:
        run_small(block, names)
    assert "did you mean factor?" in capsys.readouterr().out
    assert {type(text) for text in names["texts"]} == {aptlab.GeneratedText}
    assert names["longer"].values["rope"]["factor"] == 8
    assert names["without"].values["lengths"] != names["result"].values["lengths"]


def test_the_page_names_what_the_objects_have():
    """A word in code style in the column of results is a class, or an attribute of the class before it."""
    page = (ROOT / "docs" / "api.md").read_text()
    rows = re.findall(r"^\| `aptlab\.\w+\(.*?\)` \| .*?`(\w+)`: (.*?) \|", page, re.MULTILINE)
    assert {name for name, _ in rows} == {"Run", "LoadedModel", "GeneratedText", "EvalResult"}
    for name, words_ in rows:
        kind = getattr(aptlab, name)
        attributes = re.findall(r"`(\w+)(?:\(\))?`", words_)
        assert attributes
        assert [word for word in attributes if word not in {*dir(kind), *kind.__dataclass_fields__}] == []


def test_links_of_the_page_lead_somewhere():
    links = re.findall(r"\[[^\]]+\]\(([^)#]+)\)", (ROOT / "docs" / "api.md").read_text())
    assert [link for link in links if "://" not in link and not (ROOT / "docs" / link).exists()] == []


def test_the_readme_shows_it_in_ten_lines(capsys):
    (block,) = [block for block in read_blocks("README.md") if "import aptlab" in block]
    assert len(block.splitlines()) <= 10
    assert LONG in block
    names = run_small(block, {})
    assert names["run"].result.steps == 2
    assert [row["multiple"] for row in names["result"].values["lengths"]] == [1, 2, 4]
    assert names["net"].vocab == 257
