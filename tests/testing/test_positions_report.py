"""The cross-project table: what is absent, cannot be built or no longer fails is said."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from aptlab.testing.invariance import LAWS, LawResult

FOLDER = Path(__file__).parents[2] / "benchmarks" / "positions"
BORROWED = ("known_bad", "memory", "common")


@pytest.fixture
def run(monkeypatch):
    """benchmarks/positions/run.py as a module; what it imports from its folder is forgotten afterwards."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    spec = importlib.util.spec_from_file_location("positions_run", FOLDER / "run.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    yield module
    for name in BORROWED:
        sys.modules.pop(name, None)


def found(status="pass", **changed):
    """One cell per law, all of a status but those named."""
    return {law.name: LawResult(law=law.name, status=changed.get(law.name, status), value=1e-6) for law in LAWS}


def verdicts(text):
    """(positions, law) -> verdict, of the table of expected failures."""
    rows = [[word.strip() for word in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")]
    return {(row[0], row[1], row[2]): row[-1] for row in rows[1:]}


def test_an_expected_failure_that_passes_is_reported(run):
    version = run.PINS["transformers"]
    rows = [run.Row("transformers", version, "dynamic", found(cached="FAIL"))]
    missing = [[project, pin, "not installed"] for project, pin in run.PINS.items() if project != "transformers"]
    got = verdicts(run.expected(rows, missing))
    assert got[f"transformers {version}", "dynamic", "cached"] == "still fails"
    assert got[f"transformers {version}", "dynamic", "batched"] == "NO LONGER REPRODUCES (pass)"
    assert got[f"transformers {version}", "longrope", "cached"] == "NO LONGER REPRODUCES (gone)"
    assert got[f"torchtune {run.PINS['torchtune']}", "rope", "10M"] == "not measured"


def test_another_version_and_a_new_failure_are_said(run):
    rows = [run.Row(project, "99", "lang", found(bf16="FAIL", cached="error")) for project in run.PINS]
    text = run.expected(rows, [])
    pin = run.PINS["rotary-embedding-torch"]
    expected = "still fails, with 99 instead of the pin"
    assert verdicts(text)[f"rotary-embedding-torch {pin}", "lang", "bf16"] == expected
    assert "- rotary-embedding-torch `lang`: cached" in text
    assert "- rotary-embedding-torch `lang`: bf16" not in text


def test_an_absent_project_is_a_row(run, monkeypatch):
    monkeypatch.setitem(run.PACKAGES, "torchtune", "no_such_package")
    assert run.loaded("torchtune") == (None, "not installed")
    text = run.main_table(
        [run.Row("aptlab", "0", "x", found())], [["torchtune", "0.6.1", "not installed"]], run.Notes()
    )
    assert "torchtune 0.6.1" in text
    assert "not installed" in text.splitlines()[-1]


def test_a_kind_that_cannot_be_built_is_an_error_in_every_cell(run):
    def make(name):
        raise ValueError(f"no {name}\nhere")

    row = run.laws_of("aptlab", SimpleNamespace(make=make), "such kind")
    assert {one.status for one in row.found.values()} == {"error"}
    assert row.found["cached"].reason == "ValueError: no such kind here"
    notes = run.Notes()
    assert run.cell(row.found["cached"], notes) == "**error** [1]"
    assert str(notes) == "[1] ValueError: no such kind here  "


def test_expected_failures_are_of_pinned_projects_and_of_laws(run):
    laws = {law.name for law in LAWS}
    assert all(bad.law in laws and bad.version == run.PINS[bad.project] for bad in run.KNOWN_BAD)
    assert len({(bad.project, bad.name, bad.law) for bad in run.KNOWN_BAD}) == len(run.KNOWN_BAD)
    lines = (FOLDER / "requirements.txt").read_text().splitlines()
    assert {f"{project}=={pin}" for project, pin in run.PINS.items()} <= set(lines)
