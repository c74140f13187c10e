from __future__ import annotations

import numpy as np
import pytest
import torch

from aptlab.data.loader import RowLoader
from aptlab.data.module import TextData
from aptlab.data.rows import BatchPlan, Mixed
from aptlab.data.rows.mixed_table import MixedRows, MixedTable, cut_documents
from aptlab.data.rows.packed_table import PackedTable
from aptlab.data.rows.regimes import count_regime_tokens
from aptlab.data.rows.shares import CYCLE, KINDS
from aptlab.data.tokenizers import ByteTokenizer
from aptlab.errors import CheckpointError, ConfigError
from aptlab.nn.positions.rope import Linear, LongRoPE2, Standard
from aptlab.testing import make_tiny_decoder

CONTEXT, SHORT = 64, 16
SIZES = (200, 10, 40, 7, 150, 33, 64, 9, 120, 300, 5, 80)
OFFSETS = np.concatenate([[0], np.cumsum(SIZES)])
TOKENS = np.arange(OFFSETS[-1], dtype=np.uint16)
ROWS = MixedTable(TOKENS, OFFSETS, CONTEXT, SHORT)


def rows_of(*, batch: int = 4, mix: Mixed | None = None, rank: int = 0, world: int = 1) -> MixedRows:
    plan = BatchPlan(batch=batch, seed=3, rank=rank, world=world)
    kind = mix or Mixed()
    return MixedRows(ROWS, plan, counts=kind.counts(), settings=kind.settings())


def loader(*, start: int = 0) -> RowLoader:
    return RowLoader(rows_of(), start=start)


def of_kind(kind: str, count: int = 200) -> dict:
    numbers = [n for n in range(count) if n < len(ROWS.starts[kind])]
    return ROWS.rows(np.full(len(numbers), KINDS.index(kind)), np.array(numbers))


def test_no_piece_is_longer_than_asked_and_every_document_begins_one():
    pieces = cut_documents(OFFSETS, SHORT)
    assert np.diff(pieces).max() <= SHORT
    assert np.diff(pieces).min() >= 1
    assert set(OFFSETS) <= set(pieces)
    assert len(pieces) - 1 == sum(-(-size // SHORT) for size in SIZES)


def test_short_rows_hold_pieces_that_see_themselves_alone():
    batch = of_kind("short")
    for tokens, positions, segments in zip(batch["tokens"], batch["positions"], batch["segments"]):
        for segment in np.unique(segments):
            mine = segments == segment
            assert mine.sum() <= SHORT
            assert (positions[mine] == np.arange(mine.sum())).all()
            document = np.searchsorted(OFFSETS, tokens[mine], side="right")
            assert len(set(document)) == 1


def test_packed_rows_hold_whole_documents():
    batch = of_kind("packed")
    plain = PackedTable(TOKENS, OFFSETS, CONTEXT, document_mask=True).rows(np.arange(len(ROWS.starts["packed"])))
    for name in ("tokens", "targets", "positions", "segments"):
        assert (batch[name] == plain[name]).all()


def test_long_rows_are_one_segment_inside_one_document():
    batch = of_kind("long")
    assert len(batch["tokens"]) == sum((size - 1) // CONTEXT for size in SIZES)
    assert (batch["positions"] == np.arange(CONTEXT)).all()
    assert (batch["segments"] == 1).all()
    for tokens, targets in zip(batch["tokens"], batch["targets"]):
        both = np.append(tokens, targets[-1])
        assert (np.diff(both) == 1).all()
        assert len(set(np.searchsorted(OFFSETS, both, side="right"))) == 1


def test_without_long_documents_long_rows_are_the_stream():
    rows = MixedTable(TOKENS, np.arange(0, len(TOKENS) + 1, 30)[: len(TOKENS) // 30 + 1], CONTEXT, SHORT)
    assert (rows.starts["long"] == rows.starts["packed"]).all()


@pytest.mark.parametrize(
    "mix", [Mixed(), Mixed(short=0.5, packed=0.0), Mixed(short=0.0, packed=0.0), Mixed(short=0.25)]
)
def test_shares_are_exact_in_every_cycle(mix):
    kinds = np.concatenate([rows_of(batch=4, mix=mix).choose_rows(n)[0] for n in range(2 * CYCLE // 4)])
    for cycle in kinds.reshape(2, CYCLE):
        assert tuple(np.bincount(cycle, minlength=3)) == mix.counts()


def test_the_default_shares_are_those_of_the_paper():
    assert Mixed().counts() == (30, 30, 40)


def test_every_row_of_a_kind_is_seen_before_one_is_seen_again():
    chosen = [rows_of(batch=1).choose_rows(n) for n in range(6 * CYCLE)]
    for kind, name in enumerate(KINDS):
        numbers = [int(n[0]) for k, n in chosen if k[0] == kind]
        seen = np.bincount(numbers, minlength=len(ROWS.starts[name]))
        assert len(seen) == len(ROWS.starts[name])
        assert seen.max() - seen.min() <= 1


def test_a_batch_is_a_function_of_its_number():
    batches = iter(loader())
    ahead = [next(batches) for _ in range(7)]
    resumed = next(iter(loader(start=6)))
    assert all(ahead[6][name].equal(resumed[name]) for name in resumed)
    assert all(value.dtype == torch.int64 for value in resumed.values())


def test_ranks_share_one_global_batch():
    whole = [rows_of(batch=8).batch(n)["ids"] for n in range(3)]
    halves = [[rows_of(batch=4, rank=rank, world=2).batch(n)["ids"] for rank in range(2)] for n in range(3)]
    assert all((np.concatenate(parts) == one).all() for one, parts in zip(whole, halves))


def test_tokens_are_counted_by_the_length_of_their_own_sequence():
    short = {name: torch.from_numpy(value) for name, value in of_kind("short").items()}
    long = {name: torch.from_numpy(value) for name, value in of_kind("long").items()}
    assert count_regime_tokens(short, SHORT).tolist() == [short["tokens"].numel(), 0]
    assert count_regime_tokens(long, SHORT).tolist() == [0, long["tokens"].numel()]
    packed = of_kind("packed")
    by_hand = sum(
        (segments == segment).sum()
        for positions, segments in zip(packed["positions"], packed["segments"])
        for segment in np.unique(segments)
        if positions[segments == segment].max() < SHORT
    )
    found = count_regime_tokens({name: torch.from_numpy(value) for name, value in packed.items()}, SHORT)
    assert found[0] == by_hand
    assert found.sum() == packed["tokens"].size


@pytest.fixture
def make(texts):
    def data(**mix) -> TextData:
        rows = Mixed(**{"original_len": SHORT, **mix})
        return TextData(texts, tokenizer=ByteTokenizer(), context=CONTEXT, batch=4, rows=rows)

    return data


def test_the_module_gives_training_rows_of_three_kinds_and_plain_validation(make):
    data = make()
    batch = next(iter(data.train_dataloader()))
    assert set(batch) == {"tokens", "targets", "positions", "segments", "kinds", "ids"}
    assert "segments" not in next(iter(data.val_dataloader()))
    assert data.windows(CONTEXT, multiples=(1, 2), tokens=256).length == 2 * CONTEXT
    assert data.vocab_size == 257
    assert data.summary()["original_len"] == SHORT
    assert data.batches_per_epoch(2) == len(data.train_dataloader().rows) // 8


def test_the_module_goes_on_where_its_state_says(make):
    data = make()
    state = {**data.state_dict(), "micro_batches": 5}
    again = make()
    again.load_state_dict(state)
    assert next(iter(again.train_dataloader()))["ids"].equal(data.train_dataloader().batch_at(5)["ids"])
    assert again.state_dict() == state


def test_other_shares_are_another_training(make):
    with pytest.raises(CheckpointError, match=r"trained with other rows: shares \[30, 30, 40\], now \[50, 30, 20\]"):
        make(short=0.5).load_state_dict(make().state_dict())
    with pytest.raises(CheckpointError, match=r"trained with other rows: original_len 16, now 8"):
        make(original_len=8).load_state_dict(make().state_dict())


@pytest.mark.parametrize(
    ("mix", "message"),
    [
        ({"original_len": None}, r"^original_len=null, and the rope has none; set it to the length"),
        (
            {"original_len": CONTEXT},
            r"^original_len=64 must be shorter than context=64, the length to reach",
        ),
        ({"short": 0.8, "packed": 0.3}, r"^short=0\.8 and packed=0\.3 are more than all rows"),
        ({"short": -0.1}, r"^short must be in \[0, 1\], got -0\.1"),
    ],
)
def test_a_wrong_mix_is_refused(mix, message, make):
    with pytest.raises(ConfigError, match=message):
        make(**mix).train_dataloader()


def test_the_model_rotates_short_pieces_as_trained_and_long_segments_rescaled():
    plain, slow = make_tiny_decoder(rope=Standard()), make_tiny_decoder(rope=Linear(factor=4.0))
    rule = LongRoPE2(original_len=SHORT, factor=4.0, long=(4.0,) * 8)
    net = make_tiny_decoder(rope=rule)
    batch = {name: torch.from_numpy(value[:1]) for name, value in of_kind("short").items()}
    long = {name: torch.from_numpy(value[:1]) for name, value in of_kind("long").items()}
    both = {name: torch.cat((batch[name], long[name])) for name in ("tokens", "positions", "segments")}
    tokens = both["tokens"] % 61
    with torch.no_grad():
        logits = net(tokens, positions=both["positions"], segments=both["segments"]).logits
        assert torch.allclose(logits[1], slow(tokens[1:]).logits[0], atol=1e-4)
        for segment in batch["segments"][0].unique():
            mine = batch["segments"][0] == segment
            assert torch.allclose(logits[0, mine], plain(tokens[:1, mine]).logits[0], atol=1e-4)
