"""The report of the search benchmark says what its journal holds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def report(load_benchmark):
    return load_benchmark("search_report")


def network(published, halving, *, yarn, longrope2=3.0):
    def found(rule, search, seed, score, tokens):
        return {"rule": rule, "search": search, "seed": seed, "score": score, "unseen": score + 0.5, "tokens": tokens}

    searches = [found("longrope", "published", seed, score, 10_000_000) for seed, score in enumerate(published)]
    searches += [found("longrope", "halving", seed, score, 2_000_000) for seed, score in enumerate(halving)]
    searches += [found("longrope2", search, 0, longrope2, 4_000_000) for search in ("published", "halving")]
    return {"rules": {"yarn": {"score": yarn, "unseen": yarn}}, "searches": searches}


def test_a_search_counts_as_better_where_its_worst_seed_is(report):
    lines = report.verdicts([network([1.0, 3.5], [1.0, 2.0], yarn=3.0), network([1.0], [1.0], yarn=0.5)])
    assert lines[0] == (
        "- longrope, published, its worst seed: better than yarn on 0 of 2 networks; "
        "digits read better than by guessing on 2"
    )
    assert lines[1].startswith("- longrope, halving, its worst seed: better than yarn on 1 of 2 networks")


def test_differences_are_paired_by_network_and_have_an_interval(report):
    lines = report.verdicts([network([2.0, 4.0], [1.0, 2.0], yarn=5.0), network([1.0], [0.5], yarn=5.0)])
    (halving,) = [line for line in lines if line.startswith("- longrope: halving")]
    assert halving == (
        "- longrope: halving spends 20.0% of the published tokens; its score less the published: "
        "-1.000 ± 6.353 nats (by network -1.500, -0.500)"
    )
    assert "- published: the score of longrope2 less that of longrope: +1.000 ± 12.706 nats" in "\n".join(lines)


def test_a_network_without_a_seed_leaves_its_cell_empty(report):
    rows = report.rows_of([network([2.0, 4.0], [1.0], yarn=5.0), network([1.0], [0.5], yarn=6.0)])
    assert rows[0] == ["yarn", "", "0", "5.000 / 5.000", "6.000 / 6.000"]
    assert ["longrope", "published 1", "10.00", "4.000 / 4.500", ""] in rows


def test_the_table_is_that_of_the_journal_beside_it(report, tmp_path, monkeypatch, capsys):
    results = BENCHMARKS / "results"
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    report.write_report(results / "search.jsonl")
    assert (tmp_path / "search.md").read_text() == (results / "search.md").read_text()
    assert (tmp_path / "search.png").stat().st_size > 10_000


def test_networks_of_two_settings_are_refused(report, tmp_path):
    lines = [{"steps": steps, "target": 768, "iterations": 40} for steps in (1, 2)]
    journal = tmp_path / "j.jsonl"
    journal.write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(
        SystemExit, match=r"holds networks of 2 settings \(steps, target, iterations\); keep one of them"
    ):
        report.write_report(journal)
