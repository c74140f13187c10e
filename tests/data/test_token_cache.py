"""A token cache holds what the source says, is complete or absent, and survives rivals and kills."""

from __future__ import annotations

import contextlib
import json
import logging
import multiprocessing
import os
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from aptlab.data.sources import TextFiles
from aptlab.data.store import cache, writer
from aptlab.data.store.cache import compute_cache_key, find_cache_root, open_or_build_store, open_store
from aptlab.data.store.split import Split
from aptlab.data.tokenizers import BPE, ByteTokenizer, Tokenizer
from aptlab.errors import DataError

SPLIT = Split(val_fraction=0.2)


def build(source, root, tokenizer: Tokenizer | None = None, split=SPLIT, **options):
    tokenizer = tokenizer or ByteTokenizer()
    key = compute_cache_key(source.fingerprint(), tokenizer, split)
    return open_or_build_store(source, tokenizer, split, root=Path(root), key=key, **options)


@pytest.fixture
def root(tmp_path):
    return tmp_path / "root"


def names(root):
    return [path.name for path in (root / "tokens").iterdir() if not path.name.endswith(".lock")]


def test_the_stream_is_every_document_and_eos_on_its_side(texts, root):
    store = build(texts, root)
    for side, is_val in ((store.train, False), (store.val, True)):
        chosen = [text for text in texts.texts if SPLIT.is_val(text) == is_val]
        assert np.array_equal(side.tokens, [i for text in chosen for i in [*text.encode(), 256]])
        assert side.sizes.tolist() == [len(text.encode()) for text in chosen]
        assert side.offsets.tolist() == [0, *np.cumsum(side.sizes + 1)]
        assert side.bytes_per_token == side.sizes.sum() / len(side.tokens)
    assert store.meta["sides"]["train"]["tokens"] == len(store.train.tokens)
    assert store.train.tokens.dtype == np.dtype("<u2")


def test_bpe_tokens_decode_to_the_documents(texts, root, tmp_path):
    tokenizer = BPE(vocab=300).prepare(lambda: iter(texts.texts), key="k", folder=tmp_path)
    side = build(texts, root, tokenizer).val
    decoded = [tokenizer.decode(side.tokens[a : b - 1]) for a, b in zip(side.offsets, side.offsets[1:])]
    assert decoded == [text for text in texts.texts if SPLIT.is_val(text)]


def test_chunks_do_not_change_what_is_written(texts, root, tmp_path, monkeypatch):
    whole = build(texts, root)
    monkeypatch.setattr(writer, "CHUNK_CHARACTERS", 300)
    in_chunks = build(texts, tmp_path / "other")
    assert whole.meta == in_chunks.meta


def test_a_second_opening_reads_and_builds_nothing(texts, root, monkeypatch):
    first = build(texts, root)
    monkeypatch.setattr(cache, "write_sides", None)
    assert build(texts, root).meta == first.meta


def test_the_key_follows_documents_tokenizer_and_split(texts, make_texts, tmp_path):
    tokenizer = BPE(vocab=300).prepare(lambda: iter(texts.texts), key="k", folder=tmp_path)
    fingerprints = [texts.fingerprint(), make_texts(61).fingerprint()]
    keys = {
        compute_cache_key(f, t, s)
        for f in fingerprints
        for t in (ByteTokenizer(), tokenizer)
        for s in (SPLIT, Split(0.2, seed=1))
    }
    assert len(keys) == 8


def test_progress_is_told_of_every_document(texts, root):
    seen = []
    build(texts, root, progress=lambda unit, amount: seen.append((unit, amount)))
    assert seen == [("documents", 60)]


@pytest.mark.parametrize("file", ["train.tokens", "val.offsets", "val.sizes"])
@pytest.mark.parametrize("damage", ["truncate", "remove"])
def test_a_damaged_cache_is_built_again_with_a_line(texts, root, caplog, file, damage):
    store = build(texts, root)
    expected = np.array(store.train.tokens)
    path = store.folder / file
    path.unlink() if damage == "remove" else path.write_bytes(path.read_bytes()[:-8])
    with caplog.at_level(logging.WARNING, logger="aptlab"):
        again = build(texts, root)
    what = "is missing" if damage == "remove" else r"has \d+ bytes"
    assert len(caplog.messages) == 1
    assert len(names(root)) == 1
    assert np.array_equal(again.train.tokens, expected)
    assert re.search(rf"damaged: .*{file} {what}, meta\.json says \d+; building it again", caplog.messages[0])


def test_meta_that_is_missing_or_no_json_is_built_again(texts, root, caplog):
    for text in (None, "{", "[]", "{}"):
        meta = build(texts, root).folder / "meta.json"
        meta.unlink() if text is None else meta.write_text(text)
        assert len(build(texts, root).val.tokens) > 0
    assert len(caplog.messages) == 4


def test_a_flipped_bit_is_found_by_the_hash(texts, root):
    store = build(texts, root)
    path = store.folder / "train.tokens"
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    open_store(store.folder, verify="size")
    with pytest.raises(DataError, match=r"damaged: .*train\.tokens: its bytes from 0 on are not what was written"):
        open_store(store.folder)
    with pytest.raises(DataError, match=r"damaged: .*train\.tokens does not have the sha256 that meta\.json says"):
        open_store(store.folder, verify="full")


def test_a_token_outside_the_vocabulary_is_refused(texts, root):
    store = build(texts, root)
    with pytest.raises(DataError, match=r"holds token 256, but the vocabulary has 100"):
        open_store(store.folder, vocab_size=100)


def test_a_tokenizer_that_breaks_its_promise_is_refused(texts, root, monkeypatch):
    monkeypatch.setattr(ByteTokenizer, "encode_batch", lambda self, texts: [np.array([300]) for _ in texts])
    with pytest.raises(DataError, match=r"document text-\d+ has token 300, but the tokenizer has 257 tokens"):
        build(texts, root)
    assert names(root) == []


def test_an_empty_side_or_source_is_refused(make_texts, root):
    for seed in range(9):
        split = Split(val_fraction=0.001, seed=seed)
        with pytest.raises(
            DataError, match=r"^split\.val_fraction=0\.001 leaves the val side empty: all 3 documents are on the other"
        ):
            build(make_texts(3), root, split=split)
    with pytest.raises(DataError, match=r"the source has no document; give it files with text"):
        build(make_texts(0), root)


def test_a_full_disk_is_one_line_and_leaves_nothing(texts, root, monkeypatch):
    def full(self, numbers):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer.NumberWriter, "write", full)
    with pytest.raises(DataError, match=r"the token cache .* cannot be written: No space left on device"):
        build(texts, root)
    assert names(root) == []


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that start as a copy")


def corpus(folder, count=40):
    folder.mkdir()
    for n in range(count):
        (folder / f"{n}.txt").write_text(f"text {n} " * 50)
    return str(folder / "*.txt")


def build_files(files, root, delay, built):
    """In a process of its own: build slowly, and count how often encoding happened."""
    encode = ByteTokenizer.encode_batch

    def slow(self, texts):
        Path(built, str(os.getpid())).touch()
        time.sleep(delay)
        return encode(self, texts)

    ByteTokenizer.encode_batch = slow  # type: ignore[method-assign]
    writer.CHUNK_DOCUMENTS = 4
    build(TextFiles(files), root)


def start(files, root, delay, built):
    process = multiprocessing.get_context("fork").Process(target=build_files, args=(files, root, delay, built))
    process.start()
    return process


@needs_fork
def test_two_processes_that_build_at_once_make_one_cache(tmp_path, root):
    files, built = corpus(tmp_path / "texts"), tmp_path / "built"
    built.mkdir()
    both = [start(files, root, 0.02, built) for _ in range(3)]
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0, 0]
    assert len(names(root)) == len(list(built.iterdir())) == 1
    open_store(root / "tokens" / names(root)[0], verify="full")


@needs_fork
def test_rivals_without_a_lock_still_make_one_valid_cache(tmp_path, root, monkeypatch):
    files, built = corpus(tmp_path / "texts"), tmp_path / "built"
    built.mkdir()
    monkeypatch.setattr(cache, "wait_for_lock", lambda path: contextlib.nullcontext(False))
    both = [start(files, root, 0.02, built) for _ in range(3)]
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0, 0]
    assert len(names(root)) == 1
    open_store(root / "tokens" / names(root)[0], verify="full")


@needs_fork
def test_a_kill_while_building_leaves_nothing_that_loads_and_the_next_run_cleans_up(tmp_path, root):
    files, built = corpus(tmp_path / "texts"), tmp_path / "built"
    built.mkdir()
    process = start(files, root, 0.05, built)
    deadline = time.monotonic() + 20
    while not list(root.glob("tokens/.*.build-*/train.tokens")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert process.pid
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    left = names(root)
    assert left
    assert all(name.startswith(".") for name in left)
    for folder in root.glob("tokens/.*.build-*"):
        with pytest.raises(DataError, match=r"has no meta\.json"):
            open_store(folder)
    store = build(TextFiles(files), root)
    assert names(root) == [store.folder.name]


def test_the_cache_folder_is_the_asked_one_or_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv("APTLAB_CACHE", str(tmp_path / "from env"))
    assert find_cache_root() == tmp_path / "from env"
    assert find_cache_root(str(tmp_path / "named")) == tmp_path / "named"
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"^cache=.*file/x cannot be written: .*; name a writable folder"):
        find_cache_root(str(tmp_path / "file/x"))
    monkeypatch.setenv("APTLAB_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"APTLAB_CACHE=.*file cannot be written"):
        find_cache_root()


def test_an_unwritable_home_falls_back_to_the_temporary_folder_with_one_line(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").touch()
    monkeypatch.delenv("APTLAB_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "good"))
    assert find_cache_root() == tmp_path / "good" / "aptlab"
    assert caplog.messages == []
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    found = find_cache_root()
    assert found.parent == tmp_path
    assert len(caplog.messages) == 1
    assert f"token files go to {found}" in caplog.messages[0]


def test_meta_is_plain_and_names_no_folder(texts, root):
    text = (build(texts, root).folder / "meta.json").read_text()
    assert str(root) not in text
    assert set(json.loads(text)) == {
        "version",
        "key",
        "source",
        "vocab_size",
        "dtype",
        "files",
        "sums",
        "sides",
        "check",
    }
