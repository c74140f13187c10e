"""Loss by length and by position, against plain loops over the same windows."""

from __future__ import annotations

import itertools
import logging
import math

import numpy as np
import pytest
import torch

from aptlab.data.rows.windows import Windows
from aptlab.data.store.cache import TokenSide
from aptlab.errors import DataError
from aptlab.evals import evaluate_lengths, evaluate_windows, fit_windows
from aptlab.evals.scoring import lengths
from aptlab.evals.scoring.lengths import bucket_losses, compute_token_losses
from aptlab.nn.smooth import LeftSpin
from aptlab.testing.tiny import VOCAB, make_random_tokens, make_tiny_decoder

CONTEXT = 8


def side(tokens: int = 700) -> TokenSide:
    values = np.random.default_rng(0).integers(0, VOCAB, tokens).astype(np.uint16)
    offsets = np.array([0, tokens // 3, tokens])
    return TokenSide(values, offsets, np.diff(offsets) * 2)


def windows(**settings) -> Windows:
    return Windows(side(), **{"context": CONTEXT, "multiples": (1, 2, 4), "tokens": 256, **settings})


def reference(net, windows_of_text: Windows, multiple: int) -> list[list[float]]:
    """-ln p(target) in float64, window by window: [window][position]."""
    out = []
    for batch in windows_of_text.batches(multiple, tokens=1):
        with torch.no_grad():
            chances = net.double()(batch["tokens"]).logits.double().log_softmax(-1)
        out.append([-chances[0, t, target].item() for t, target in enumerate(batch["targets"][0].tolist())])
    net.float()
    return out


@pytest.mark.parametrize("smooth", [None, LeftSpin])
def test_rows_are_token_weighted_means_over_all_windows(smooth):
    net = make_tiny_decoder(**({"smooth": smooth} if smooth else {}))
    given = windows()
    rows = evaluate_lengths(net, given)
    assert [(row["multiple"], row["length"]) for row in rows] == [(1, 8), (2, 16), (4, 32)]
    for row in rows:
        values = list(itertools.chain(*reference(net, given, row["multiple"])))
        assert row["tokens"] == len(values) == 256
        assert row["loss"] == pytest.approx(math.fsum(values) / len(values), rel=1e-5)
        assert row["ppl"] == pytest.approx(math.exp(row["loss"]))
        assert row["bpb"] == pytest.approx(row["loss"] / math.log(2) / 2)
        assert set(row) == {"multiple", "length", "loss", "ppl", "bpb", "tokens"}


def test_bytes_per_token_may_be_given():
    net, given = make_tiny_decoder(), windows(multiples=(1,))
    assert evaluate_lengths(net, given, bytes_per_token=4.0)[0]["bpb"] == pytest.approx(
        evaluate_lengths(net, given)[0]["bpb"] / 2
    )


def test_ignored_targets_do_not_count():
    class Half(Windows):
        def batches(self, multiple, *, tokens):
            for batch in super().batches(multiple, tokens=tokens):
                targets = batch["targets"].clone()
                targets[:, ::2] = -100
                yield {**batch, "targets": targets}

    net = make_tiny_decoder()
    given = Half(side(), context=CONTEXT, multiples=(2,), tokens=256)
    row = evaluate_lengths(net, given)[0]
    kept = [value for losses in reference(net, windows(multiples=(2,)), 2) for value in losses[1::2]]
    assert row["tokens"] == len(kept)
    assert row["loss"] == pytest.approx(math.fsum(kept) / len(kept), rel=1e-5)


@pytest.mark.parametrize("piece", [1, 7, 20, 63])
def test_reading_in_pieces_through_the_cache_gives_the_same_losses(piece):
    net, tokens = make_tiny_decoder(), make_random_tokens(2, 33)
    with torch.no_grad():
        whole = compute_token_losses(net, tokens[:, :-1], tokens[:, 1:], piece=10_000)
        parts = compute_token_losses(net, tokens[:, :-1], tokens[:, 1:], piece=piece)
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-4)


def test_no_more_logits_are_held_than_allowed(monkeypatch):
    net, largest = make_tiny_decoder(), 0

    def watch(_, __, output):
        nonlocal largest
        largest = max(largest, output.numel())

    net.head.register_forward_hook(watch)
    before = evaluate_lengths(net, windows())
    monkeypatch.setattr(lengths, "LOGITS", 10 * VOCAB)
    largest = 0
    after = evaluate_lengths(net, windows())
    assert 0 < largest <= 10 * VOCAB
    assert [row["loss"] for row in after] == pytest.approx([row["loss"] for row in before], rel=1e-5)


def test_positions_are_means_of_the_longest_windows():
    net, given = make_tiny_decoder(), windows()
    positions = evaluate_windows(net, given).positions
    values = np.array(reference(net, given, 4))
    ends = [0, *(row["position"] for row in positions)]
    assert ends[-1] == 32
    for row, first, last in zip(positions, ends[:-1], ends[1:], strict=True):
        assert row["loss"] == pytest.approx(values[:, first:last].mean(), rel=1e-5)
        assert row["tokens"] == values[:, first:last].size


def test_buckets_grow_like_a_logarithm_and_cover_every_position_once():
    rows = bucket_losses(torch.ones(65_536), torch.ones(65_536))
    assert [row["position"] for row in rows] == [2**power for power in range(1, 17)]
    assert sum(row["tokens"] for row in rows) == 65_536
    assert [row["position"] for row in bucket_losses(torch.ones(1), torch.ones(1))] == [1]


def test_the_network_keeps_its_mode_and_bf16_autocast_is_near():
    net = make_tiny_decoder(gain=2.0).train()
    exact = evaluate_lengths(net, windows())
    near = evaluate_lengths(net, windows(), precision="bf16-mixed")
    assert net.training
    for a, b in zip(exact, near, strict=True):
        assert a["loss"] != b["loss"]
        assert a["loss"] == pytest.approx(b["loss"], rel=0.01)


def test_a_loss_too_large_for_a_float_gives_an_infinite_perplexity():
    assert lengths.make_length_row(1, 8, 800.0, 1, 1.0)["ppl"] == math.inf
    assert math.isnan(lengths.make_length_row(1, 8, 0.0, 0, 1.0)["ppl"])


class Data:
    """The part of a data module that `fitting_windows` asks."""

    def windows(self, context, *, multiples, tokens):
        return Windows(side(100), context=context, multiples=multiples, tokens=tokens)


def test_multiples_that_the_text_is_too_short_for_are_left_out_with_a_reason(caplog):
    with caplog.at_level(logging.WARNING, "aptlab"):
        given = fit_windows(Data(), context=16, multiples=(1, 2, 4, 8), tokens=64)
    assert given.multiples == (1, 2, 4)
    assert [record.getMessage() for record in caplog.records] == [
        "length 8x is left out: the validation text has 100 tokens, too few for a length of 128 (8 x context=16); "
        "largest multiple: 6, or use more text"
    ]


@pytest.mark.parametrize(
    ("longest", "said"),
    [
        (None, ["lengths 4x, 8x are left out: the validation text has 100 tokens, too few for a length of 120"]),
        (30, ["lengths 2x, 4x, 8x are left out: the model has positions for 30 tokens only"]),
        (60, ["lengths 4x, 8x are left out: the model has positions for 60 tokens only"]),
    ],
)
def test_multiples_that_are_left_out_for_one_reason_are_told_in_one_line(caplog, longest, said):
    with caplog.at_level(logging.WARNING, "aptlab"):
        fit_windows(Data(), context=30, multiples=(1, 2, 4, 8), tokens=64, longest=longest)
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == len(said)
    assert all(line.startswith(start) for line, start in zip(told, said, strict=True))


def test_a_text_shorter_than_one_window_is_an_error():
    with pytest.raises(DataError, match="100 tokens, too few for a length of 200"):
        fit_windows(Data(), context=200, multiples=(1, 2), tokens=64)
