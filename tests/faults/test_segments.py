"""Runs over documents in segments that are killed in the middle of one go on as if nothing had been."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch

from aptlab.checkpoint import load_checkpoint
from aptlab.data.rows import Segments
from aptlab.nn.attention import LinearAttention
from aptlab.nn.segments import list_tensors
from tests.faults.parts import Outcome, Run, assert_same

pytestmark = pytest.mark.filterwarnings("ignore")
ROWS = Segments(segments=2, val_segments=2)  # two windows of 16 tokens: a document of the corpus takes two batches
GIVEN: dict[str, Any] = {"attention": LinearAttention, "rows": ROWS, "steps": 6, "accumulate": 2, "every": 2, "val": 3}


@pytest.fixture(scope="module")
def find_whole(tmp_path_factory):
    """The undisturbed run."""
    return functools.cache(lambda: Run(tmp_path_factory.mktemp("whole") / "run", **GIVEN).train())


def read_kept(run: Run) -> dict[str, Any]:
    return load_checkpoint(run.last())["segment_states"]


# The seventh micro-batch is the first one of step 4, the eighth its second; a signal saves the step before.
@pytest.mark.parametrize(("where", "code"), [("train.batch:8", 137), ("train.batch:9:TERM", 143)])
def test_a_run_killed_in_the_middle_of_a_document_goes_on_equal_to_the_bit(tmp_path, find_whole, where, code):
    whole: Outcome = find_whole()
    run = Run(tmp_path / "broken", **GIVEN)
    assert run.in_child(where) == code
    kept = read_kept(run)
    assert (kept["positions"][0] > 0).any(), "no row is in the middle of a document"
    assert_same(run.resume(), whole)
    assert whole.saver.last is not None
    last = load_checkpoint(whole.saver.last)["segment_states"]
    for mine, theirs in zip(list_tensors(read_kept(run)), list_tensors(last), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.slow
def test_two_ranks_keep_what_one_keeps_of_all_rows(tmp_path):
    given = {**GIVEN, "steps": 2, "accumulate": 1, "val": 100}
    alone = Run(tmp_path / "alone" / "run", **given)
    alone.train()
    together = Run(tmp_path / "together" / "run", **{**given, "batch": 2})
    assert together.in_ranks({}) == [0, 0]
    expected = read_kept(alone)["positions"]
    assert [part.tolist() for part in read_kept(together)["positions"]] == [part.tolist() for part in expected]
