"""Whole documents in windows: the sums with what was kept are those of one pass, and buckets double."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from aptlab.errors import DataError
from aptlab.evals import DocumentLoss, EvalContext
from aptlab.evals.scoring.documents import score_document, summarize_windows
from aptlab.nn.attention import LinearAttention
from aptlab.objectives import compute_token_nll
from aptlab.testing import make_random_tokens, make_tiny_decoder


def test_sums_with_memory_are_those_of_one_pass_and_fresh_windows_know_nothing():
    net, text = make_tiny_decoder(attention=LinearAttention), make_random_tokens(1, 23)
    sums = score_document(net, text[0], window=8)
    with torch.no_grad():
        nats = compute_token_nll(net(text[:, :-1]).logits, text[:, 1:], "none")[0]
        places = torch.arange(8, 16).unsqueeze(0)
        fresh = compute_token_nll(net(text[:, 8:16], positions=places).logits, text[:, 9:17], "sum")
    assert sums["counts"] == [8, 8, 6]
    assert sums["kept"] == pytest.approx([float(part.sum()) for part in nats.split(8)], abs=1e-3)
    assert sums["fresh"][0] == pytest.approx(sums["kept"][0], abs=1e-5)
    assert sums["fresh"][1] == pytest.approx(float(fresh), abs=1e-3)


def test_attention_that_keeps_nothing_gains_nothing():
    sums = score_document(make_tiny_decoder(), make_random_tokens(1, 20)[0], window=5)
    assert sums["kept"] == sums["fresh"]


def test_windows_are_summed_in_buckets_that_double():
    records = [
        {"kept": [1.0, 2.0, 3.0, 4.0, 5.0], "fresh": [1.0, 3.0, 5.0, 7.0, 9.0], "counts": [2, 2, 2, 2, 1]},
        {"kept": [3.0], "fresh": [3.0], "counts": [2]},
    ]
    rows = summarize_windows(records)
    assert [(row["first"], row["last"], row["tokens"]) for row in rows] == [(1, 1, 4), (2, 2, 2), (3, 4, 4), (5, 5, 1)]
    assert [row["loss"] for row in rows] == [1.0, 1.0, 1.75, 5.0]
    assert [row["gain"] for row in rows] == [0.0, 0.5, 1.25, 4.0]


def make_context(sizes: list[int]) -> EvalContext:
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    data = SimpleNamespace(store=SimpleNamespace(val=SimpleNamespace(offsets=offsets)))
    made = SimpleNamespace(trained_context=16, net=make_tiny_decoder(), open_data=lambda: data)
    return cast(Any, made)


def test_the_longest_documents_are_read_first():
    evaluation = DocumentLoss(tokens=150, longest=60)
    assert evaluation._choose(make_context([10, 50, 90, 40, 5])) == (16, [(10, 60), (60, 120), (150, 190)])


def test_short_documents_are_told():
    with pytest.raises(DataError, match=r"longer than a window of 16 tokens; the longest has 12; use window=3, or"):
        DocumentLoss().check(make_context([10, 12]))
