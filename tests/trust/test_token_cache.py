"""A token cache is what was written, or it is refused by name or built anew: no damaged token is ever used."""

from __future__ import annotations

import json
import logging
import os
import pickle
import random

import numpy as np
import pytest

from aptlab.config import compose
from aptlab.data.module import TextData
from aptlab.data.rows import BatchPlan, Mixed, Packed
from aptlab.data.rows.windows import Windows
from aptlab.data.store import cache, meta
from aptlab.data.store.cache import compute_cache_key, open_or_build_store, open_store
from aptlab.data.store.pieces import PIECE, CheckedTokens, PieceSums, count_pieces
from aptlab.data.store.split import Split
from aptlab.data.tokenizers import ByteTokenizer
from aptlab.errors import ConfigError, DataError
from tests.data.conftest import Texts

SPLIT = Split(val_fraction=0.3)
WORDS = [f"word{n}" for n in range(97)]
SOURCE = Texts(tuple(" ".join(random.Random(n).choices(WORDS, k=700)) for n in range(40)))


@pytest.fixture
def lazy(monkeypatch):
    """As if the cache were larger than what is verified when it is opened."""
    monkeypatch.setattr(cache, "WHOLE", 0)


def build(root, **options):
    key = compute_cache_key(SOURCE.fingerprint(), ByteTokenizer(), SPLIT)
    return open_or_build_store(SOURCE, ByteTokenizer(), SPLIT, root=root, key=key, **options)


def flip(path, at, bit=0):
    """Change one bit of a file, and leave its times as they were."""
    stat, data = path.stat(), bytearray(path.read_bytes())
    data[at] ^= 1 << bit
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def make_older(folder):
    """Bring a cache into the form that it had before there were checksums of pieces."""
    path = folder / "meta.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in values.items() if key not in ("sums", "check")}, indent=1))
    (folder / "pieces.crc32").unlink()


FILES = [f"{side}.{kind}" for side in ("train", "val") for kind in ("tokens", "offsets", "sizes")]


@pytest.mark.parametrize("name", [*FILES, "pieces.crc32", "meta.json"])
def test_a_changed_bit_of_any_file_is_named_and_the_cache_is_built_anew(name, tmp_path, caplog):
    first = build(tmp_path)
    content = {file: (first.folder / file).read_bytes() for file in [*FILES, "pieces.crc32", "meta.json"]}
    size, rng = len(content[name]), random.Random(name)
    for at in [0, size - 2, *rng.sample(range(size), 6)]:
        caplog.clear()
        flip(first.folder / name, at, rng.randrange(8))
        with caplog.at_level(logging.WARNING, logger="aptlab"):
            build(tmp_path)
        same = {file: (first.folder / file).read_bytes() for file in content} == content
        told = [line for line in caplog.messages if line.endswith("; building it again")]
        assert same, at
        assert len(told) == len(caplog.messages) == 1, (at, caplog.messages)
        assert name in told[0] or name == "meta.json"


def test_a_damaged_piece_is_never_given_out_whatever_the_index(tmp_path, lazy):
    store = build(tmp_path)
    whole, tokens = np.array(store.train.tokens), store.folder / "train.tokens"
    at = len(whole) // 2
    flip(tokens, 2 * at)
    for index in (
        at,
        at - len(whole),
        slice(at - 5, at + 5),
        slice(None, None, -1),
        np.array([[0, 1], [at, at + 1]]),
        np.array([at - len(whole)]),
        whole == whole,
        [at],
    ):
        opened = open_store(store.folder).train.tokens
        with pytest.raises(DataError, match=r"the token cache is damaged: .*train\.tokens: its bytes from [\d,]+ on"):
            opened[index]
        (store.folder / "damaged.txt").unlink()
    for read in (np.asarray, np.bincount, np.array, list):
        with pytest.raises(DataError, match=r"start again, and it is built anew"):
            read(open_store(store.folder).train.tokens)
        (store.folder / "damaged.txt").unlink()


def test_what_is_whole_is_read_as_an_array_would_be(tmp_path, lazy):
    store = build(tmp_path)
    plain = np.fromfile(store.folder / "train.tokens", dtype="<u2")
    tokens = store.train.tokens
    assert isinstance(tokens, CheckedTokens)
    assert (len(tokens), tokens.shape, tokens.dtype) == (len(plain), plain.shape, plain.dtype)
    assert count_pieces(plain.nbytes) == tokens.unread > 10
    for index in (7, -3, slice(5, 90), slice(-20, None), slice(0, 0), np.array([[1, 2], [-1, 4]]), plain > 100, ...):
        assert np.array_equal(tokens[index], plain[index])
    with pytest.raises(IndexError):
        tokens[np.array([len(plain)])]
    again = pickle.loads(pickle.dumps(tokens))
    assert np.array_equal(again, plain)
    assert again.unread == 0


def test_only_the_pieces_that_are_read_are_compared_and_each_once(tmp_path, lazy, monkeypatch):
    tokens, compared = build(tmp_path).train.tokens, []
    crc = cache.find_damaged_piece.__globals__["zlib"].crc32
    monkeypatch.setattr("aptlab.data.store.pieces.zlib.crc32", lambda data, *rest: (compared.append(1), crc(data))[1])
    total = tokens.unread
    for _ in range(3):
        tokens[np.array([[0, 1, 2], [PIECE, PIECE + 1, PIECE + 2]])]
    assert (len(compared), tokens.unread) == (2, total - 2)
    np.asarray(tokens)
    np.asarray(tokens)
    assert (len(compared), tokens.unread) == (total, 0)


def test_damage_that_is_met_while_reading_builds_the_cache_anew_at_the_next_start(tmp_path, lazy, caplog):
    store = build(tmp_path)
    whole = (store.folder / "train.tokens").read_bytes()
    flip(store.folder / "train.tokens", len(whole) - 1)
    with pytest.raises(DataError, match=r"train\.tokens: its bytes from .*; start again, and it is built anew$"):
        np.asarray(build(tmp_path).train.tokens)
    with caplog.at_level(logging.WARNING, logger="aptlab"):
        assert np.asarray(build(tmp_path).train.tokens).tobytes() == whole
    assert [line.partition(str(store.folder))[2] for line in caplog.messages] == [
        " was found damaged while it was read; building it again"
    ]


def test_a_file_that_changes_while_it_is_read_is_compared_again_or_refused(tmp_path, lazy):
    store = build(tmp_path)
    path, tokens = store.folder / "train.tokens", store.train.tokens
    np.asarray(tokens)
    os.utime(path)  # touched, and not changed
    assert tokens[0] == np.fromfile(path, dtype="<u2")[0]
    assert tokens.unread
    with path.open("r+b") as file:
        file.write(b"\xff\xff")
    with pytest.raises(DataError, match=r"train\.tokens: its bytes from 0 on are not what was written"):
        tokens[0]
    os.truncate(path, 100)
    with pytest.raises(DataError, match=r"it had [\d,]+ bytes when it was opened and has 100; start again"):
        tokens[0]


@pytest.mark.parametrize("rows", [Packed(document_mask=True), Mixed(original_len=16)], ids=["packed", "mixed"])
def test_every_reader_of_rows_meets_the_damage(rows, tmp_path, lazy):
    """Training rows, validation rows, windows and bytes per token; before, each of them took the changed token."""
    options = {"tokenizer": ByteTokenizer(), "context": 32, "batch": 4, "split": SPLIT, "rows": rows}
    folder = TextData(SOURCE, cache=str(tmp_path), **options).store.folder
    for side in ("train", "val"):
        size = (folder / f"{side}.tokens").stat().st_size
        for at in range(PIECE, size, PIECE):
            flip(folder / f"{side}.tokens", at)
    data = TextData(SOURCE, cache=str(tmp_path), **options)
    train = rows.make_rows(data.store.train, context=32, plan=BatchPlan(batch=4))
    readers = [
        lambda: [train.batch(number) for number in range(train.batches_per_epoch)],
        lambda: list(data.val_dataloader()),
        lambda: data.token_bytes,
        lambda: list(Windows(data.store.val, context=32).batches(1)),
    ]
    for read in readers:
        with pytest.raises(DataError, match=r"the token cache is damaged: .*tokens: its bytes from [\d,]+ on"):
            read()


def test_a_changed_validation_cache_gives_no_other_loss_under_the_same_fingerprint(tmp_path):
    store = build(tmp_path)
    whole = np.array(store.val.tokens)
    flip(store.folder / "val.tokens", 200)
    assert np.array_equal(build(tmp_path).val.tokens, whole)
    assert build(tmp_path).key == store.key


def test_full_verifies_everything_at_the_opening_and_size_only_sizes(tmp_path, lazy, caplog):
    store = build(tmp_path, verify="full")
    flip(store.folder / "train.tokens", 50_000)
    assert np.asarray(build(tmp_path, verify="size").train.tokens).size
    with caplog.at_level(logging.WARNING, logger="aptlab"):
        build(tmp_path, verify="full")
    assert "train.tokens does not have the sha256 that meta.json says; building it again" in caplog.text
    with pytest.raises(ConfigError, match=r"verify=fast: no such way to verify .*; allowed: auto, full, size"):
        build(tmp_path, verify="fast")
    with pytest.raises(ConfigError, match=r"verify=ful: no such way .*did you mean full\?"):
        TextData(SOURCE, tokenizer=ByteTokenizer(), context=8, batch=1, verify="ful")


def test_of_the_ranks_of_a_host_one_does_the_work_of_full(tmp_path, lazy, monkeypatch):
    build(tmp_path)
    hashed = []
    monkeypatch.setattr(cache, "_check_hashes", lambda folder, meta: hashed.append(os.environ["LOCAL_RANK"]))
    for rank in ("0", "1"):
        monkeypatch.setenv("LOCAL_RANK", rank)
        tokens = build(tmp_path, verify="full").train.tokens
    assert hashed == ["0"]
    assert isinstance(tokens, CheckedTokens)


def test_a_cache_of_an_earlier_version_is_given_its_checksums_once(tmp_path, caplog):
    store = build(tmp_path)
    before = {name: (store.folder / name).read_bytes() for name in ("meta.json", "pieces.crc32")}
    make_older(store.folder)
    with caplog.at_level(logging.INFO, logger="aptlab"):
        assert build(tmp_path).key == store.key
        build(tmp_path)
    assert len(caplog.messages) == 1
    assert "is of an earlier version: whole, and given checksums in" in caplog.messages[0]
    after = {name: (store.folder / name).read_bytes() for name in before}
    assert after["pieces.crc32"] == before["pieces.crc32"]
    assert json.loads(after["meta.json"]) == json.loads(before["meta.json"])


def test_an_older_cache_that_is_damaged_is_built_anew(tmp_path, caplog):
    store = build(tmp_path)
    whole = (store.folder / "val.tokens").read_bytes()
    make_older(store.folder)
    flip(store.folder / "val.tokens", 31)
    with caplog.at_level(logging.WARNING, logger="aptlab"):
        assert np.asarray(build(tmp_path).val.tokens).tobytes() == whole
    assert "val.tokens does not have the sha256 that meta.json says; building it again" in caplog.text


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda meta: [], "it should be dict, it is list"),
        (lambda meta: 7, "it should be dict, it is int"),
        (lambda meta: meta.pop("dtype"), "dtype is missing"),
        (lambda meta: meta.update(dtype="<f8"), "dtype is '<f8', not one of <u2, <u4"),
        (lambda meta: meta.update(files=[]), "files should be dict, it is list"),
        (lambda meta: meta["files"].pop("val.sizes"), r"files\.val\.sizes is missing"),
        (lambda meta: meta["files"].update({"val.sizes": "x"}), r"files\.val\.sizes should be dict, it is str"),
        (lambda meta: meta["sides"]["val"].update(tokens="9"), r"sides\.val\.tokens should be int, it is str"),
        (lambda meta: meta["sides"]["val"].update(largest_id=None), r"sides\.val\.largest_id should be int"),
        (lambda meta: meta.update(sums=[1]), "sums should be dict, it is list"),
    ],
)
def test_meta_of_another_shape_is_one_line_that_names_the_key(change, problem, tmp_path):
    store = build(tmp_path)
    values = json.loads((store.folder / "meta.json").read_text())
    del values["check"]
    changed = change(values)
    (store.folder / "meta.json").write_text(json.dumps(changed if isinstance(changed, list | int) else values))
    with pytest.raises(DataError, match=rf"has a meta\.json of another shape: {problem}") as error:
        open_store(store.folder)
    assert "\n" not in str(error.value)
    assert len(build(tmp_path).val.tokens)


def test_sums_of_a_stream_do_not_depend_on_its_parts():
    data, rng = random.Random(0).randbytes(5 * PIECE + 77), random.Random(1)
    whole, parts, at = PieceSums(), PieceSums(), 0
    whole.update(data)
    while at < len(data):
        size = rng.choice([1, 2, 700, PIECE - 1, PIECE, 2 * PIECE])
        parts.update(data[at : at + size])
        at += size
    sums = whole.finish()
    assert np.array_equal(sums, parts.finish())
    assert len(sums) == count_pieces(len(data)) == 6
    assert PieceSums().finish().tolist() == []


def test_an_older_cache_on_a_full_disk_is_used_and_kept(tmp_path, monkeypatch, caplog):
    store = build(tmp_path)
    make_older(store.folder)

    def full(path, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(meta, "_replace_bytes", full)
    with caplog.at_level(logging.WARNING, logger="aptlab"):
        again = build(tmp_path)
    assert np.array_equal(again.train.tokens, store.train.tokens)
    assert len(caplog.messages) == 1
    assert "cannot be given checksums (No space left on device); it is whole" in caplog.messages[0]


def test_how_it_is_verified_makes_no_other_experiment():
    ways = [compose("train", [f"data.verify={way}"]).hash() for way in ("auto", "full", "size")]
    assert len(set(ways)) == 1
