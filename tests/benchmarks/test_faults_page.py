"""The page of faults says what its journal holds."""

from __future__ import annotations

from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def faults(load_benchmark, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "")  # which the script sets for what it starts
    return load_benchmark("faults")


def test_the_page_that_is_committed_is_that_of_the_journal(faults):
    lines = faults.read_journal()
    assert [line["campaign"] for line in lines] == list(faults.COUNTS)
    assert faults.PAGE.read_text() == faults.render_page(lines)


def test_a_campaign_that_is_run_again_takes_the_place_of_its_older_line(faults, tmp_path, monkeypatch):
    monkeypatch.setattr(faults, "JOURNAL", tmp_path / "faults.jsonl")
    row = {"fault": "F5 x", "injected": "by hand", "tried": 2, "held": 1, "note": "one did not"}
    line = dict.fromkeys(("campaign", "commit", "date", "seconds", "load", "machine", "versions"), "")
    old, other = line | {"campaign": "kills", "rows": [row]}, line | {"campaign": "disk", "rows": [row]}
    new = line | {"campaign": "kills", "rows": [row | {"tried": 7, "held": 7, "note": ""}]}
    faults.write_journal([old, other, new])
    assert faults.read_journal() == [new, other]
    page = faults.render_page(faults.read_journal())
    (total,) = (line for line in page.splitlines() if line.startswith("| all "))
    assert [cell.strip() for cell in total.split("|")[1:-1]] == ["all", "", "9", "8", ""]
    assert "The campaign ranks was not run." in page
