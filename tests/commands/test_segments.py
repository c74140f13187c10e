"""`aptlab train data.segments=` from a command line to what is said and measured."""

from __future__ import annotations

import pytest

import aptlab
from aptlab.cli import main
from aptlab.errors import AptlabError
from tests.commands.small_run import newest, words

GIVEN = ("attention=linear", "data.segments=3", "data.rows.val_segments=2", "evals=none")


def test_a_run_over_segments_counts_every_window_and_says_what_memory_is_worth(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", *words(*GIVEN)]) == 0
    shown = capsys.readouterr().out
    assert newest().choices["data"] == "segments"
    assert f"2 steps x {4 * 3 * 32:,} tokens = {2 * 4 * 3 * 32:,} tokens" in shown
    result = newest().result
    assert result is not None
    assert result.tokens == 2 * 4 * 3 * 32
    assert main(["eval", "ckpt=last", "eval=documents", "eval.tokens=400", "device=cpu"]) == 0
    assert "loss with memory" in capsys.readouterr().out


def test_a_validation_text_shorter_than_a_row_is_told_before_training(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AptlabError, match=r"val_segments=999: so many windows of context=32 are longer"):
        aptlab.train(words(*GIVEN, "data.rows.val_segments=999"))
