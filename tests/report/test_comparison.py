"""The comparison of runs: who is grouped with whom, who is best, what is warned of, and what the files hold."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from aptlab.report import compare_runs
from aptlab.report.write import format_comparison, format_comparison_csv
from aptlab.runs import find_runs
from tests.report.making import make_run

RUNS = Path("runs")


def family(rope: str, losses: list[float | None], **changes) -> None:
    for seed, loss in enumerate(losses):
        make_run(RUNS, f"{rope}-{seed}", seed=seed, loss=loss, choices={"rope": rope}, **changes)


def compared(**options):
    return compare_runs(find_runs([RUNS]), **options)


def test_runs_that_differ_in_seed_and_folder_only_are_one_group():
    family("standard", [1.5, 1.6, 1.7])
    found = compared()
    assert [group.name for group in found.groups] == ["all runs"]
    assert found.cells[0][0] is not None
    assert found.cells[0][0].n == 3
    assert found.verdict == "one row only: nothing to compare"


def test_only_columns_that_differ_are_shown():
    family("standard", [1.5])
    family("yarn", [1.5])
    make_run(RUNS, "z", lr=3e-3, choices={"rope": "yarn", "logger": "wandb"})
    found = compared()
    labels = [group.labels for group in found.groups]
    assert {"rope": "standard", "optim.lr": "0.001"} in labels
    assert {"rope": "yarn", "optim.lr": "0.003"} in labels
    assert all(set(label) == {"rope", "optim.lr"} for label in labels)


def test_the_best_row_is_marked_if_its_interval_is_apart():
    family("standard", [1.500, 1.501, 1.502])
    family("yarn", [1.400, 1.401, 1.402])
    found = compared()
    assert found.best == 1
    assert found.verdict == "best val/loss: rope=yarn (its 95 % interval overlaps no other)"
    assert "yarn *" in format_comparison(found, terminal=False)


def test_overlapping_rows_are_not_separated():
    family("standard", [1.5, 1.4, 1.6])
    family("yarn", [1.45, 1.35, 1.55])
    found = compared()
    assert found.best is None
    assert found.verdict == "not separated: the 95 % interval of rope=yarn overlaps that of rope=standard"
    assert "*" not in format_comparison(found, terminal=False)


def test_one_seed_separates_nothing():
    family("standard", [1.5])
    family("yarn", [1.0])
    found = compared()
    assert found.best is None
    assert found.verdict == "not separated: rope=yarn leads, but one seed gives no interval; run at least 3 seeds"
    assert "±" not in format_comparison(found, terminal=False).splitlines()[2]


def test_a_row_with_a_diverged_run_is_never_the_best():
    family("standard", [1.5, 1.51, 1.52])
    family("yarn", [1.0, 1.001, None])
    found = compared()
    assert found.best is None
    assert found.verdict == "rope=yarn has the best mean val/loss, but 1 of its runs diverged"
    assert "(2 of 3)" in format_comparison(found, terminal=False)


def test_the_difference_is_paired_over_common_seeds():
    family("standard", [1.5, 1.7, 1.6])
    family("yarn", [1.4, 1.6, 1.5])
    difference = compared().differences[1]
    assert difference is not None
    assert difference.mean == pytest.approx(-0.1)
    assert difference.half == pytest.approx(0, abs=1e-9)
    other = compared(baseline="rope=yarn").differences
    assert other[0] is not None
    assert other[0].mean == pytest.approx(0.1)
    assert other[1] is None


@pytest.mark.parametrize(
    ("changes", "warning"),
    [
        ({"steps": 110, "tokens": 110 * 512}, "not the same budget: steps 100 (rope=standard) against 110 (rope=yarn)"),
        ({"tokens": 200 * 512}, "not the same budget: tokens per step 512 (rope=standard) against 1,024 (rope=yarn)"),
        ({"parameters": 5100}, "not the same budget: parameters 5,000 (rope=standard) against 5,100 (rope=yarn)"),
        ({"context": 128}, "not the same budget: context 64 (rope=standard) against 128 (rope=yarn)"),
        (
            {"data": {"name": "other", "fingerprint": "x"}},
            "not the same data: text (rope=standard) against other (rope=yarn); losses cannot be compared",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_unequal_budgets_are_warned_of(changes, warning):
    family("standard", [1.5])
    family("yarn", [1.5], **changes)
    assert compared().warnings == [warning]


def test_equal_budgets_are_not_warned_of():
    family("standard", [1.5])
    family("yarn", [1.5], parameters=5040)
    assert compared().warnings == []


def test_rows_can_be_pooled_and_say_so():
    family("standard", [1.5])
    make_run(RUNS, "z", seed=0, loss=1.7, lr=3e-3)
    found = compared(by=["rope"])
    assert found.cells[0][0] is not None
    assert (found.cells[0][0].n, found.cells[0][0].mean) == (2, pytest.approx(1.6))
    assert found.notes == ["by=rope: rows average over runs that also differ in optim.lr"]


def test_a_repeated_seed_counts_once():
    make_run(RUNS, "a", loss=1.5)
    make_run(RUNS, "b", loss=1.7)
    found = compared()
    assert found.notes == [f"all runs: seed 0 was run more than once; the latest is used ({RUNS / 'b'})"]
    assert found.cells[0][0] is not None
    assert (found.cells[0][0].n, found.cells[0][0].mean) == (1, 1.7)


def test_csv_has_every_digit():
    losses = [1.1234567890123456, 1.2345678901234567]
    family("standard", losses)
    (row,) = csv.DictReader(format_comparison_csv(compared()).splitlines())
    assert float(row["val/loss"]) == sum(losses) / 2
    assert row["seeds"] == "0 1"
    assert float(row["val/loss ±95%"]) == pytest.approx(12.7062047 * (losses[1] - losses[0]) / 2, rel=1e-7)
    assert row["val/loss n"] == "2"


def test_a_narrow_terminal_gets_several_tables(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    family("standard", [1.5, 1.51])
    family("yarn", [1.4, 1.41])
    shown = format_comparison(compared(), terminal=True)
    assert shown.count("standard") >= 3
    assert "…" not in shown
    assert max(len(line) for line in shown.splitlines() if "\x1b" not in line and "yarn" not in line[:3]) < 140
