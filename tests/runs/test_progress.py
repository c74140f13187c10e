"""The progress display: a few plain lines where there is no terminal, a bar where there is one."""

from __future__ import annotations

import io
import sys

import pytest

from aptlab.runs import progress as module
from aptlab.runs.progress import ProgressBar, format_duration


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """Seconds, set by the test."""
    seconds = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: seconds[0])
    return seconds


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (63, "1:03"), (3700, "1:01:40"), (-5, "0:00")])
def test_a_duration_is_told_in_minutes_and_seconds(seconds, text):
    assert format_duration(seconds) == text


def test_about_as_many_lines_as_asked_for_come_and_the_last_one(capsys, clock):
    with ProgressBar("step", total=10, lines=3) as bar:
        for done in range(1, 11):
            clock[0] += 2.0
            bar.update(done, "loss 1.0")
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "step 3/10  loss 1.0  ETA 0:14",
        "step 6/10  loss 1.0  ETA 0:08",
        "step 9/10  loss 1.0  ETA 0:02",
        "step 10/10  loss 1.0  ETA 0:00",
    ]


def test_what_an_earlier_process_has_done_is_no_speed_of_this_one(capsys, clock):
    with ProgressBar("segments", total=8, done=6, lines=None) as bar:
        clock[0] = 5.0
        bar.advance(note="16 tokens")
    assert capsys.readouterr().out == "segments 7/8  16 tokens  ETA 0:05\n"


def test_a_short_computation_prints_nothing(capsys, clock):
    with ProgressBar("segments", total=20, pause=10.0) as bar:
        for _ in range(20):
            clock[0] += 0.49
            bar.advance()
    assert capsys.readouterr().out == ""


def test_a_long_one_prints_no_line_within_the_pause(capsys, clock):
    with ProgressBar("segments", total=100, pause=10.0) as bar:
        for _ in range(100):
            clock[0] += 0.3
            bar.advance()
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == ["34/100", "68/100"]


def test_a_note_that_is_not_known_yet_puts_the_line_off(capsys, clock):
    asked = []
    with ProgressBar("step", total=6, lines=3) as bar:
        for done in range(1, 7):
            bar.update(done, lambda done=done: asked.append(done) or (None if done < 3 else f"loss {done}"))
    assert [line.partition("  ETA")[0] for line in capsys.readouterr().out.splitlines()] == [
        "step 3/6  loss 3",
        "step 4/6  loss 4",
        "step 6/6  loss 6",
    ]
    assert asked == [2, 3, 4, 6]


def test_the_same_number_is_told_once_and_number_0_where_every_thing_has_a_line(capsys):
    with ProgressBar("iteration", total=None, lines=None) as bar:
        for done in (0, 0, 1, 1):
            bar.refresh("nothing to see without a terminal")
            bar.update(done)
    assert capsys.readouterr().out == "iteration 0\niteration 1\n"


def test_a_terminal_shows_a_bar_and_whole_lines_above_it(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with ProgressBar("step", total=2, refresh=0.0) as bar:
        bar.update(1, "loss 1.0")
        bar.print_line("validation: [loss] 2.0")
        bar.update(2, "loss 0.5")
        bar.stop()
    shown = terminal.getvalue()
    assert "validation: [loss] 2.0" in shown
    assert "2/2  loss 0.5" in shown
    assert "step 1/2" not in shown  # no plain line
