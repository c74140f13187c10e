"""Sliding-window perplexity against a loop over single predictions."""

from __future__ import annotations

import math

import pytest
import torch

from aptlab.evals.scoring import sliding
from aptlab.evals.scoring.sliding import iterate_windows, score_segment, summarize_segments
from aptlab.testing.tiny import make_random_tokens, make_tiny_decoder


@pytest.mark.parametrize("targets", [1, 7, 8, 9, 64, 65])
@pytest.mark.parametrize("length", [1, 8, 64])
@pytest.mark.parametrize("stride", [1, 3, 8, 100])
def test_every_target_is_counted_once_in_a_window_no_longer_than_asked(targets, length, stride):
    cut = list(iterate_windows(targets, length, stride))
    assert [at for one in cut for at in range(one.first, one.last)] == list(range(targets))
    assert all(0 <= one.start <= one.first and one.last - one.start <= length for one in cut)
    assert all(one.last - one.start == min(length, targets) for one in cut)
    assert all(one.last - one.first <= stride for one in cut[1:])


def reference(net, tokens, *, length: int, stride: int) -> tuple[list[float], list[list[float]]]:
    """-ln p of every target, alone; and the same by window: the first has `length` targets, the others `stride`."""
    losses, by_window = [], []
    count = len(tokens) - 1
    end = min(length, count)
    while len(losses) < count:
        start = max(0, end - length)
        with torch.no_grad():
            chances = net(tokens[None, start:end]).logits[0].double().log_softmax(-1)
        new = [-chances[at - start, tokens[at + 1]].item() for at in range(len(losses), end)]
        losses += new
        by_window.append(new)
        end = min(end + stride, count)
    return losses, by_window


@pytest.mark.parametrize(("length", "stride"), [(16, 4), (16, 16), (40, 7), (64, 256), (8, 100)])
def test_sums_are_those_of_a_loop_over_windows(length, stride):
    net, tokens = make_tiny_decoder(), make_random_tokens(1, 58)[0]
    found = score_segment(net, tokens, length=length, stride=stride)
    losses, by_window = reference(net, tokens, length=length, stride=min(stride, length))
    assert found["tokens"] == 57 == len(losses)
    assert found["windows"] == len(by_window)
    assert found["nats"] == pytest.approx(math.fsum(losses), rel=1e-5)
    assert found["means"] == pytest.approx(sum(sum(one) / len(one) for one in by_window), rel=1e-5)


def test_pieces_and_batches_change_nothing(monkeypatch):
    net, tokens = make_tiny_decoder(), make_random_tokens(1, 58)[0]
    whole = score_segment(net, tokens, length=16, stride=4)
    monkeypatch.setattr(sliding, "TOKENS", {"cpu": 1})
    monkeypatch.setattr(sliding, "LOGITS", 5 * net.vocab)
    parts = score_segment(net, tokens, length=16, stride=4)
    assert parts == {key: pytest.approx(value, rel=1e-5) for key, value in whole.items()}


def test_the_summary_weighs_tokens_and_shows_what_weighing_windows_would_give():
    sums = [
        {"nats": 10.0, "tokens": 10, "windows": 1, "means": 1.0},
        {"nats": 6.0, "tokens": 2, "windows": 2, "means": 6.0},
    ]
    row = summarize_segments(8, sums, bytes_per_token=2.0)
    assert row["loss"] == pytest.approx(16 / 12)
    assert row["ppl"] == pytest.approx(math.exp(16 / 12))
    assert row["bpb"] == pytest.approx(16 / 12 / math.log(2) / 2)
    assert row["chunk_loss"] == pytest.approx(7 / 3)
    assert row["chunk_ppl"] == pytest.approx(math.exp(7 / 3))
    assert (row["tokens"], row["windows"]) == (12, 3)


def test_a_loss_too_large_for_a_float_gives_an_infinite_perplexity():
    assert summarize_segments(8, [{"nats": 800.0, "tokens": 1, "windows": 1, "means": 800.0}], 1.0)["ppl"] == math.inf
