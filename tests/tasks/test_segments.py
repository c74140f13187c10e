"""Rows that are read in windows: what the network keeps, and how far gradients go; linear attention keeps sums."""

from __future__ import annotations

import io
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from aptlab.data.rows import SegmentPlan
from aptlab.errors import ConfigError
from aptlab.models import Decoder
from aptlab.nn.attention import LinearAttention
from aptlab.nn.ffn import MatFormer, SwiGLU
from aptlab.nn.shape import Shape
from aptlab.objectives import Elastic, NextToken
from aptlab.optim import AdamW, Cosine
from aptlab.tasks import LanguageTask
from aptlab.tasks.segments import SegmentReader, forget_broken_rows
from aptlab.testing import make_random_tokens, make_tiny_decoder

WINDOW, TOKENS = 4, 24
# Row 0 changes its document at 10, row 1 at 6 and 20, both of them inside a window.
NAMES = torch.tensor([[3] * 10 + [4] * 14, [7] * 6 + [8] * 14 + [9] * 4])
PLACES = torch.tensor([[*range(10), *range(14)], [*range(6), *range(14), *range(4)]])


def make_net(**parts: Any) -> Decoder:
    shape = Shape(dim=16, depth=2, heads=2, hidden=24)
    return make_tiny_decoder(attention=LinearAttention, shape=shape, **parts).train()


def make_batch(begin: int = 0, end: int = TOKENS) -> dict[str, Tensor]:
    text = {"tokens": make_random_tokens(2, TOKENS), "positions": PLACES, "segments": NAMES}
    batch = {name: value[:, begin:end] for name, value in text.items()}
    return batch | {"targets": make_random_tokens(2, TOKENS, seed=1)[:, begin:end]}


def read_whole(net: Decoder) -> Any:
    batch = make_batch()
    return net(batch["tokens"], positions=batch["positions"], segments=batch["segments"])


def read_batches(reader: SegmentReader, net: Decoder, *cuts: int) -> Tensor:
    parts = [make_batch(*cut) for cut in zip((0, *cuts), (*cuts, TOKENS), strict=True)]
    return torch.cat([reader.read(net, part, keep=True).logits for part in parts], 1)


@pytest.mark.parametrize("cuts", [(), (12,), (4, 8, 20)])
def test_windows_and_batches_read_what_one_pass_reads(cuts):
    net = make_net()
    got = read_batches(SegmentReader(SegmentPlan(window=WINDOW)), net, *cuts)
    assert torch.allclose(got, read_whole(net).logits, atol=2e-5)


def test_without_carry_and_without_keeping_a_batch_begins_with_nothing():
    net, second = make_net(), make_batch(12)
    fresh = SegmentReader(SegmentPlan(window=WINDOW)).read(net, second, keep=True).logits
    cut = SegmentReader(SegmentPlan(window=WINDOW, carry=False))
    assert torch.equal(read_batches(cut, net, 12)[:, 12:], fresh)
    reader = SegmentReader(SegmentPlan(window=WINDOW))
    reader.read(net, make_batch(0, 12), keep=True)
    assert torch.equal(reader.read(net, second, keep=False).logits, fresh)
    assert not torch.allclose(reader.read(net, second, keep=True).logits, fresh, atol=1e-3)


def test_gradients_go_through_the_windows_of_a_batch_and_not_into_the_batch_before():
    grads = []
    for read in (lambda net: read_batches(SegmentReader(SegmentPlan(window=WINDOW)), net),
                 lambda net: read_whole(net).logits):  # fmt: skip
        net = make_net()
        read(net)[:, -4:].logsumexp(-1).mean().backward()
        grads.append([weight.grad for weight in net.parameters()])
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*grads, strict=True))
    net, reader = make_net(), SegmentReader(SegmentPlan(window=WINDOW))
    reader.read(net, make_batch(0, 12), keep=True)
    kept = reader.pack(0, lambda rows: rows)
    assert not any(tensor.requires_grad for tensor in kept["0/attention"][0])


def test_a_row_whose_state_is_not_finite_forgets_it():
    states = {"0/attention": (torch.tensor([[1.0, torch.nan], [2.0, 3.0]]), torch.tensor([5, 6]))}
    kept = forget_broken_rows(states)["0/attention"]
    assert kept[0].tolist() == [[0.0, 0.0], [2.0, 3.0]]
    assert kept[1].tolist() == [0, 6]


def test_a_checkpoint_holds_what_was_kept_at_the_last_step_and_goes_on_from_it():
    net, reader = make_net(), SegmentReader(SegmentPlan(window=WINDOW))
    reader.begin((0, 1))
    for number, begin in enumerate((0, 8)):  # one micro-batch a step, then the first of two
        reader.begin_batch(number)
        reader.read(net, make_batch(begin, begin + 8), keep=True)
    file = io.BytesIO()
    torch.save({"step": reader.pack(1, lambda rows: rows), "all": reader.pack(2, lambda rows: rows)}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    assert saved["step"]["positions"][0].tolist() == [8, 2]
    assert saved["all"]["positions"][0].tolist() == [6, 10]
    again = SegmentReader(SegmentPlan(window=WINDOW))
    again.load(saved["all"])
    again.begin((0, 1))
    assert again.pack(2, lambda rows: rows) is saved["all"]
    last = make_batch(16)
    assert torch.equal(again.read(net, last, keep=True).logits, reader.read(net, last, keep=True).logits)


def test_ranks_take_their_own_rows_and_other_numbers_of_rows_begin_with_nothing(caplog):
    net, reader = make_net(), SegmentReader(SegmentPlan(window=WINDOW))
    reader.read(net, make_batch(0, 12), keep=True)
    saved, last = reader.pack(0, lambda rows: rows), make_batch(12)
    expected = reader.read(net, last, keep=True).logits
    for rank in range(2):
        mine = {name: value[rank : rank + 1] for name, value in last.items()}
        one = SegmentReader(SegmentPlan(window=WINDOW))
        one.load(saved)
        one.begin((rank, 2))
        assert torch.allclose(one.read(net, mine, keep=True).logits, expected[rank : rank + 1], atol=1e-5)
    few = SegmentReader(SegmentPlan(window=WINDOW))
    few.load(saved)
    fresh = SegmentReader(SegmentPlan(window=WINDOW)).read(net, mine, keep=True).logits
    assert torch.equal(few.read(net, mine, keep=True).logits, fresh)
    assert "keeps memory of 2 rows, and there are 1 now: rows begin without memory" in caplog.text


def make_task(objective: Any = None, **parts: Any) -> LanguageTask:
    return LanguageTask(make_net(**parts), objective=objective, optim=AdamW(lr=1e-3), schedule=Cosine())


def test_the_task_counts_every_window_and_its_loss_is_that_of_the_whole_row():
    task, batch = make_task(NextToken()), make_batch()
    task.bind_data(SimpleNamespace(segment_plan=SegmentPlan(window=WINDOW), bytes_per_token=1.0))
    assert task.reader is not None
    assert task.count_units(batch) == 2 * TOKENS
    whole = task.objective(read_whole(task.net), batch)["loss"]
    assert task.objective(task(batch), batch)["loss"].item() == pytest.approx(whole.item(), rel=1e-5)
    assert task.extract_features(batch).shape == (2, 16)


def test_an_objective_of_several_passes_is_refused():
    with pytest.raises(ConfigError, match=r"Elastic reads a batch more than once, and data=segments keeps one memory"):
        make_task(Elastic(), ffn=partial(SwiGLU, nested=MatFormer())).bind_data(
            SimpleNamespace(segment_plan=SegmentPlan(window=WINDOW))
        )
