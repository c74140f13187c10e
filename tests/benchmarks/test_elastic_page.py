"""The page on widths says what its journal holds."""

from __future__ import annotations

from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PAGE = BENCHMARKS / "results" / "elastic.md"


@pytest.fixture
def elastic(load_benchmark):
    return load_benchmark("elastic")


def test_the_committed_page_is_that_of_the_committed_journal(elastic, tmp_path):
    lines = elastic.read_journal(PAGE.with_suffix(".jsonl"))
    assert len({(line["kind"], line["width"], line["seed"]) for line in lines}) == len(lines) == 5 * 6
    elastic.write_report(lines, tmp_path / "elastic.md")
    assert (tmp_path / "elastic.md").read_text() == PAGE.read_text()
    assert (tmp_path / "elastic.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("dense", "said"),
    [([1.0, 1.0, 1.0], "yes"), ([0.9, 0.9, 0.9], "no"), ([1.0, 1.1, 0.9], "not separated"), ([1.0], "too few seeds")],
)
def test_a_width_is_within_its_limit_where_the_whole_interval_is(dense, said, elastic):
    lines = []
    for seed, loss in enumerate(dense):
        losses = {"": 1.0, "@0.5": 1.0, "@0.25": 1.0, "@0.125": 1.0}
        lines.append({"kind": "elastic", "width": 1.0, "seed": seed, "losses": losses})
        lines += [{"kind": "dense", "width": width, "seed": seed, "losses": {"": loss}} for width in elastic.WIDTHS]
    rows = elastic.make_rows(lines, ["elastic"], dict.fromkeys(elastic.WIDTHS, 1.0))
    assert [row[-1] for row in rows] == [said] * 4
