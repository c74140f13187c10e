"""The figure of a curriculum shows what was decided."""

from __future__ import annotations

import math
import struct

import pytest

from aptlab.report.curriculum import draw_curriculum_timeline, draw_difficulty, draw_measurements, find_bands
from aptlab.report.style import make_two_panels

CAMPUS = [
    {"step": 0.0, "curriculum/metric": 1.0, "curriculum/ppl_a": 9.0, "curriculum/ppl_b": 8.0},
    {"step": 0.0, "curriculum/metric": 0.0, "curriculum/ppl_a": 7.0, "curriculum/ppl_b": math.inf},
    {"step": 5.0, "curriculum/metric": 0.0, "curriculum/ppl_a": 4.0},
    {"step": 9.0, "curriculum/metric": 1.0},
]
STAGES = [
    {"step": 0.0, "curriculum/level": 1.0},
    {"step": 20.0, "curriculum/level": 2.0, "curriculum/accuracy": 0.9, "curriculum/competence": 0.85},
]
SORTED = [{"step": 0.0, "curriculum/pass": 1.0}]
METRICS = {"curriculum/difficulty": [(1, 0.1), (10, 0.4), (30, 0.9)]}


@pytest.mark.parametrize("timeline", [CAMPUS, STAGES, SORTED, []], ids=["campus", "stages", "sorted", "nothing"])
@pytest.mark.parametrize("metrics", [METRICS, {}], ids=["difficulty", "none"])
def test_it_has_1600_by_700_pixels_whatever_was_recorded(timeline, metrics, tmp_path):
    path = tmp_path / "curriculum.png"
    draw_curriculum_timeline(metrics, timeline, names=["a", "b"], steps=30, title="t", path=path)
    assert struct.unpack(">II", path.read_bytes()[16:24]) == (1600, 700)


def test_bands_begin_where_the_choice_changes_and_the_last_of_a_step_counts():
    assert find_bands(CAMPUS) == ("metric", [(0.0, 0.0), (9.0, 1.0)])
    assert find_bands(STAGES) == ("level", [(0.0, 1.0), (20.0, 2.0)])
    assert find_bands(SORTED) == ("metric", [])


def test_panels_name_metrics_and_levels_and_show_what_was_measured():
    _, left, right = make_two_panels("")
    draw_difficulty(left, [(1, 0.1), (10, 0.4)], CAMPUS, ["a", "b"], 30)
    draw_measurements(right, CAMPUS, 30)
    assert [text.get_text() for text in left.get_legend().get_texts()] == ["a", "b"]
    assert list(left.get_lines()[-1].get_ydata()) == [0.1, 0.4]
    first, second = right.get_lines()
    assert (list(first.get_ydata()), list(second.get_ydata())) == ([9.0, 7.0, 4.0], [8.0])
    _, left, right = make_two_panels("")
    draw_difficulty(left, [], STAGES, [], 30)
    draw_measurements(right, STAGES, 30)
    assert [text.get_text() for text in left.get_legend().get_texts()] == ["level 1", "level 2"]
    assert [line.get_label() for line in right.get_lines()] == ["accuracy", "competence"]
