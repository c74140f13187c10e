"""Heat maps: every cell has its number, in the colour of its value, and the file is whole."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.image import imread

from aptlab.errors import AptlabError
from aptlab.report.heatmap import MAP, HeatPanel, draw_heat_panel, draw_heatmaps

VALUES = [[0.0, 50.0, 100.0], [25.0, None, 75.0]]
PANEL = HeatPanel(title="found", rows=["a", "b"], columns=["1", "2", "3"], values=VALUES, low=0, high=100)


def axes_of(panel: HeatPanel):
    axes = Figure().add_subplot()
    draw_heat_panel(axes, panel, first=True)
    return axes


def test_numbers_stand_in_their_cells_and_what_was_not_measured_is_empty():
    axes = axes_of(PANEL)
    texts = {text.get_position(): text.get_text() for text in axes.texts}
    assert texts == {(0, 0): "0", (1, 0): "50", (2, 0): "100", (0, 1): "25", (2, 1): "75"}
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    assert axes.get_title(loc="left") == "found"


def test_numbers_are_dark_on_bright_cells_and_white_on_dark_ones():
    colours = {text.get_text(): text.get_color() for text in axes_of(PANEL).texts}
    assert colours["0"] == colours["25"] == "white"
    assert colours["100"] == colours["75"] != "white"


def test_small_values_are_bright_where_they_are_the_good_ones():
    colours = {
        text.get_text(): text.get_color() for text in axes_of(HeatPanel(**{**vars(PANEL), "falling": True})).texts
    }
    assert colours["100"] == "white" != colours["0"]


def test_the_colours_grow_evenly_brighter_also_for_readers_without_red_or_green():
    shades = colormaps[MAP](np.linspace(0, 1, 32))[:, :3]
    brightness = shades @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(brightness) > 0).all()
    no_red = shades @ np.array([0.0, 0.9, 0.1])
    assert (np.diff(no_red) > 0).all()


def test_the_picture_is_written_and_grows_with_its_rows(tmp_path):
    path = draw_heatmaps([PANEL, PANEL], title="t", path=tmp_path / "a.png", across="tokens", down="depth")
    assert imread(path).shape[:2] == (700, 1600)
    tall = HeatPanel(title="x", rows=[str(n) for n in range(20)], columns=["1"], values=[[n] for n in range(20)])
    assert imread(draw_heatmaps([tall], title="t", path=path, across="tokens")).shape[:2] == (210 + 20 * 42, 1600)
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


def test_a_table_of_equal_values_or_without_any_is_drawn(tmp_path):
    for values in ([[5.0]], [[None]], [[float("nan")]]):
        panel = HeatPanel(title="x", rows=["a"], columns=["1"], values=values)
        assert draw_heatmaps([panel], title="t", path=tmp_path / "a.png", across="tokens").is_file()


def test_many_columns_have_no_numbers_and_fewer_names():
    panel = HeatPanel(title="x", rows=["a"], columns=[str(n) for n in range(40)], values=[[1.0] * 40])
    axes = axes_of(panel)
    assert not axes.texts
    assert len(axes.get_xticks()) <= 16


def test_a_place_that_cannot_be_written_is_said(tmp_path):
    with pytest.raises(AptlabError, match=r"cannot write .*; choose another folder"):
        draw_heatmaps([PANEL], title="t", path=tmp_path / "none" / "a.png", across="tokens")
