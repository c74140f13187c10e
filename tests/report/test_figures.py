"""Figures have the promised size and show the promised numbers; tables of lengths are right to the digit."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import pytest

from aptlab.errors import AptlabError
from aptlab.report.comparison import compare_runs
from aptlab.report.curves import MOST, average_loss_curves, collect_length_points, draw_comparison, select_shown_groups
from aptlab.report.figure import (
    compute_loss_limits,
    draw_losses,
    draw_run_figure,
    extract_series,
    format_ppl,
    smooth_values,
)
from aptlab.report.style import get_indexed_style, make_two_panels
from aptlab.report.table import format_columns, format_length_table, format_number, render_markdown_table, render_table
from aptlab.runs import find_runs
from tests.report.making import make_run

LENGTHS = [
    {"multiple": 2, "length": 128, "loss": 1.6, "ppl": math.exp(1.6), "bpb": 2.3, "tokens": 99},
    {"multiple": 1, "length": 64, "loss": 1.5, "ppl": math.exp(1.5), "bpb": 2.2, "tokens": 99},
]


def size_of(path: Path) -> tuple[int, int]:
    return struct.unpack(">II", path.read_bytes()[16:24])


def test_the_figure_of_a_run_has_1600_by_700_pixels(tmp_path):
    metrics = {"train/loss": [(s, 5 / s) for s in range(1, 40)], "val/loss": [(10, 1.0), (30, math.nan)]}
    path = draw_run_figure(metrics, LENGTHS, title="a $x", path=tmp_path / "figure.png", context=64)
    assert size_of(path) == (1600, 700)
    assert [file.name for file in tmp_path.iterdir()] == ["figure.png"]


def test_a_run_without_numbers_still_has_a_figure(tmp_path):
    nothing = [{"multiple": 1, "length": 64, "loss": None, "ppl": None}]
    assert draw_run_figure({}, nothing, title="", path=tmp_path / "f.png", context=64).exists()
    assert draw_run_figure({"val/loss": [(0, 2.0)]}, [], title="", path=tmp_path / "g.png", context=64).exists()


@pytest.mark.parametrize(("points", "marker"), [(1, "o"), (20, "o"), (40, "")])
def test_a_single_point_of_the_training_loss_can_be_seen(points, marker):
    _, axes, _ = make_two_panels("")
    draw_losses(axes, [(step, 3.0) for step in range(1, points + 1)], [])
    line = axes.get_lines()[-1]
    assert str(line.get_marker()) in (marker, "None")
    assert (str(line.get_marker()) == "o") == (marker == "o")


def test_a_figure_that_cannot_be_written_names_its_path(tmp_path):
    with pytest.raises(AptlabError, match=r"cannot write .*nowhere/f.png: No such file"):
        draw_run_figure({}, [], title="", path=tmp_path / "nowhere/f.png", context=64)


def test_metrics_are_read_as_pairs_and_as_columns():
    pairs = {"val/loss": [(1, 2.0), (3, math.inf)]}
    columns = {"step": [1.0, 2.0, 3.0], "val/loss": [2.0, None, math.inf]}
    assert extract_series(pairs, "val/loss") == extract_series(columns, "val/loss") == [(1, 2.0)]
    assert extract_series(columns, "lr") == []


def test_the_running_mean_keeps_a_line_and_the_length():
    line = [float(i) for i in range(100)]
    found = smooth_values(line)
    assert len(found) == 100
    assert found[:98] == pytest.approx(line[:98])


def test_the_first_steps_do_not_set_the_scale():
    low, high = compute_loss_limits([[(0, 50.0), (50, 2.0), (100, 1.0)]])
    assert 0.8 < low < 1
    assert 2 < high < 2.5


def test_curves_are_means_over_the_steps_that_all_seeds_have(tmp_path):
    for seed, loss in enumerate((1.0, 2.0)):
        make_run(tmp_path, str(seed), seed=seed, loss=loss)
    text = (tmp_path / "1/metrics.csv").read_text().replace("100,0,1.3,2.2\n", "")
    (tmp_path / "1/metrics.csv").write_text(text)
    points = average_loss_curves(find_runs([tmp_path]), per_step=512)
    assert [x for x, _ in points] == [512 * step for step in (20, 40, 60, 80)]
    assert points[0][1].mean == pytest.approx(1.5 + 20 / 20)


def test_the_length_panel_averages_perplexities(tmp_path):
    for seed, loss in enumerate((1.0, 2.0)):
        make_run(tmp_path, str(seed), seed=seed, loss=loss)
    (group,) = compare_runs(find_runs([tmp_path])).groups
    found = dict(collect_length_points(group))
    assert list(found) == [1, 2, 4, 8]
    assert found[4].mean == pytest.approx(4 * (math.exp(1) + math.exp(2)) / 2)


def test_a_figure_of_many_settings_shows_the_best_and_says_so(tmp_path):
    for i in range(MOST + 2):
        make_run(tmp_path, f"{i:02}", loss=3 - 0.1 * i, choices={"rope": f"r{i:02}"})
    comparison = compare_runs(find_runs([tmp_path]))
    kept, left_out = select_shown_groups(comparison)
    assert left_out == 2
    assert [group.labels["rope"] for group in kept] == [f"r{i:02}" for i in range(2, MOST + 2)]
    assert size_of(draw_comparison(comparison, tmp_path / "figure.png")) == (1600, 700)


def test_curves_can_be_told_apart():
    looks = [(style["color"], style["linestyle"]) for style in map(get_indexed_style, range(MOST))]
    assert len(set(looks)) == MOST


def test_the_length_table_is_sorted_and_relative_to_the_trained_length():
    lines = format_length_table(LENGTHS, 64, terminal=False).splitlines()
    assert lines[0] == "loss by length (trained at 64 tokens)"
    assert lines[3].split() == ["1x", "64", "1.5000", "4.482", "2.2000", "1.00"]
    assert lines[4].split() == ["2x", "128", "1.6000", "4.953", "2.3000", "1.11"]
    assert format_length_table([], 64) == "lengths: not measured (trained at 64 tokens)"


def test_a_terminal_gets_the_same_numbers():
    shown_text = format_length_table(LENGTHS, 64, terminal=True)
    assert all(word in shown_text for word in ("1.5000", "4.953", "1.11", "\x1b["))


def test_numbers_and_cells():
    assert [format_number(x, 2) for x in (None, 1.234, 12345.6, 2e9, math.inf)] == [
        "-",
        "1.23",
        "12,346",
        "2.00e+09",
        "inf",
    ]
    assert [format_ppl(x) for x in (4.321, 43.21, 4321.0)] == ["4.32", "43.2", "4,321"]
    assert render_markdown_table(["a", "b"], [["x|y", "1"]]) == "| a | b |\n| :-- | --: |\n| x\\|y | 1 |\n"
    assert render_table(["a", "b"], [["xyz", "1"]], terminal=False) == "a    b\n---  -\nxyz  1"


def test_plain_columns_leave_out_what_is_empty_and_put_the_third_in_brackets():
    assert format_columns([]) == ""
    assert format_columns([("a", "x y", ""), ("bcd", "z", "mine")], indent=" ") == " a    x y\n bcd  z  (mine)"
    assert format_columns([("a", ""), ("b", "")]) == "a\nb"
