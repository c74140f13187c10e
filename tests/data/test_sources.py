"""Sources: which documents, in which order, and what is said about files that cannot be read."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest

from aptlab.data.sources import Hub, Stdlib, TextFiles
from aptlab.data.sources.readers import SUFFIXES, read_rows
from aptlab.data.store.split import Split
from aptlab.errors import ConfigError, DataError


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def jsonl(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def texts_of(files, **options):
    return [text for _, text in TextFiles(str(files), **options).documents()]


def test_stdlib_yields_prose_and_code_in_the_same_order_each_time():
    names = [name for name, _ in Stdlib().documents()]
    assert names == [name for name, _ in Stdlib().documents()]
    assert "prose/if" in names
    assert "code/asyncio/base_events.py" in names
    assert len(set(names)) == len(names) > 300


def test_stdlib_leaves_out_tests_installed_packages_and_tables():
    unwanted = Stdlib.SKIPPED
    found = [name for name, text in Stdlib(parts=["code"]).documents() if unwanted & set(name.split("/")) or not text]
    assert found == []


def test_stdlib_parts_are_disjoint_and_complete():
    prose, code, both = (Stdlib(parts=parts) for parts in (["prose"], ["code"], ["prose", "code"]))
    assert [*prose.documents(), *code.documents()] == list(both.documents())
    assert len({source.fingerprint() for source in (prose, code, both)}) == 3


def test_stdlib_refuses_an_unknown_part():
    with pytest.raises(ConfigError, match=r"parts=prosa: no such part; did you mean prose\?"):
        Stdlib(parts=["prosa"])
    with pytest.raises(ConfigError, match=r"parts=\[\] leaves no text"):
        Stdlib(parts=[])


def test_stdlib_says_when_the_installation_has_none(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    monkeypatch.setattr(Stdlib, "_root", staticmethod(lambda: tmp_path))
    with pytest.raises(DataError, match="this Python has no pydoc_data"):
        list(Stdlib(parts=["prose"]).documents())
    with pytest.raises(DataError, match=r"no \.py file under"):
        list(Stdlib(parts=["code"]).documents())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_suffix_is_read(tmp_path, suffix):
    rows = ["first \U0001f600", "第二"]
    path = tmp_path / f"a{suffix}"
    if suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table({"text": rows, "other": [1, 2]}), path)
    else:
        data = (jsonl(*({"text": row} for row in rows)) if "jsonl" in suffix else "\n".join(rows)).encode()
        write(path, gzip.compress(data, mtime=0) if suffix.endswith(".gz") else data)
    assert texts_of(path) == (rows if "jsonl" in suffix or suffix == ".parquet" else ["\n".join(rows)])


def test_files_are_named_relative_to_the_glob_and_sorted(tmp_path):
    for name in ("b/2.txt", "a.txt", "b/1.md"):
        write(tmp_path / "texts" / name, name)
    source = TextFiles([str(tmp_path / "texts/**/*.txt"), str(tmp_path / "texts/**/*.md")])
    assert [name for name, _ in source.documents()] == ["a.txt", os.path.join("b", "1.md"), os.path.join("b", "2.txt")]


def test_fingerprint_changes_with_content_name_and_number_of_files_but_not_with_the_folder(tmp_path):
    def build(folder, **files):
        for name, text in files.items():
            write(tmp_path / folder / f"{name}.txt", text)
        return TextFiles(str(tmp_path / folder / "*.txt")).fingerprint()

    first = build("one", a="x", b="y")
    assert build("two", a="x", b="y") == first
    assert len({first, build("three", a="x", b="z"), build("four", a="x", c="y"), build("five", a="x")}) == 4


PROBLEMS = [
    ("a.jsonl", b'{"text": "ok"}\n{"text": \n', r"a\.jsonl, line 2: bad JSON: .* at column \d+"),
    ("a.jsonl", b'{"text": "ok"}\n{"txt": "x"}\n', r"line 2: has no field 'text'; did you mean txt\?"),
    ("a.jsonl", b'{"text": "ok"}\n\n{"text": 5}\n', r"line 3: field 'text' expects text, got int '5'"),
    ("a.jsonl", b"[1, 2]\n", r"line 1: expects a JSON object, got list"),
    ("a.jsonl", b'{"text": "a"}\n{"text": "\xff"}\n', r"line 2: not UTF-8: byte 0xff at column 11"),
    ("a.jsonl", b'{"text": "\\ud800"}\n', r"line 1: field 'text' holds a lone surrogate at character 0"),
    ("a.jsonl", b"[" * 100_000 + b"\n", r"line 1: bad JSON: nested too deeply"),
    ("a.txt", b"one\ntwo \xe9\n", r"a\.txt, line 2: not UTF-8: byte 0xe9"),
    ("a.txt.gz", gzip.compress(b"some text" * 99, mtime=0)[:-9], r"a\.txt\.gz: the gzip stream is damaged"),
    (
        "a.jsonl.gz",
        gzip.compress(b'{"text": "ok"}\n' * 9, mtime=0)[:-9],
        r"a\.jsonl\.gz, line \d+: the gzip stream is damaged",
    ),
    ("a.txt.gz", b"no gzip", r"a\.txt\.gz: the gzip stream is damaged"),
    ("a.parquet", b"PAR1 nonsense", r"a\.parquet, line 1: damaged parquet"),
]


@pytest.mark.parametrize(("name", "data", "message"), PROBLEMS)
def test_a_bad_file_is_an_error_with_file_and_line(tmp_path, name, data, message):
    path = write(tmp_path / name, data)
    with pytest.raises(DataError, match=message + r".*; mend the file or set on_bad=skip"):
        texts_of(path)


EMPTY = [
    ("a.jsonl", b'{"text": ""}\n', r"a\.jsonl, line 1: field 'text' is empty"),
    ("a.jsonl", b"", r"a\.jsonl: the file is empty"),
    ("a.jsonl", b"\n \n", r"a\.jsonl: the file has blank lines only"),
    ("a.txt", b"", r"a\.txt: the file is empty"),
    ("a.txt.gz", gzip.compress(b"", mtime=0), r"a\.txt\.gz: the file is empty"),
    ("a.jsonl.gz", gzip.compress(b"", mtime=0), r"a\.jsonl\.gz: the file is empty"),
]


@pytest.mark.parametrize("on_bad", ["error", "skip"])
@pytest.mark.parametrize(("name", "data", "message"), EMPTY)
def test_an_empty_file_or_row_is_left_out_and_told(tmp_path, name, data, message, on_bad):
    path = write(tmp_path / name, data)
    with pytest.raises(
        DataError, match=rf"^files=\S+ has no text: left out 1 without any text; the first: .*{message}$"
    ):
        texts_of(path, on_bad=on_bad)
    write(tmp_path / "b.txt", "one")
    notes = []
    source = TextFiles([str(path), str(tmp_path / "b.txt")], on_bad=on_bad)
    assert [text for _, text in source.documents(notes.append)] == ["one"]
    assert len(notes) == 1
    assert re.search(rf"^left out 1 without any text; the first: .*{message}$", notes[0])


def test_bad_parquet_columns_are_named(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"body": ["x"], "n": [1]}), path)
    with pytest.raises(
        DataError, match=r"^field=text: .*a\.parquet: has no column 'text'; allowed: body, n; choose one"
    ):
        texts_of(path)
    with pytest.raises(DataError, match=r"a\.parquet, line 1: field 'n' expects text, got int '1'"):
        texts_of(path, field="n")
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), path)
    with pytest.raises(DataError, match=r"a\.parquet: the file has no rows"):
        texts_of(path)


def test_parquet_without_pyarrow_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"needs pyarrow to be read; pip install 'aptlab\[parquet\]'"):
        texts_of(write(tmp_path / "a.parquet", b"PAR1" + bytes(4) + b"PAR1"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"PAR1 not", r"its 8 bytes are fewer than the 12 of an empty one"),
        (b"PK\x03\x04" + bytes(9) + b"PAR1", r"it begins with b'PK\\x03\\x04' where b'PAR1' belongs"),
        (b"PAR1" + bytes(90), r"it ends with b'\\x00.*' where b'PAR1' belongs, so its end may be missing"),
        (b"PAR1" + b"\xff\xff\xff\x7fPAR1", r"its footer would have 2,147,483,647 bytes, and the file has 12"),
        (b"PARE" + bytes(90) + b"PARE", r"its footer is encrypted \(PARE\), and there is no key here"),
    ],
)
def test_the_ends_of_a_damaged_parquet_file_are_seen_without_pyarrow(tmp_path, monkeypatch, data, message):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=rf"a\.parquet, line 1: damaged parquet: {message}"):
        texts_of(write(tmp_path / "a.parquet", data))


def test_skip_leaves_bad_rows_out_and_counts_them(tmp_path):
    path = write(tmp_path / "a.jsonl", jsonl({"text": "one"}, {"no": 1}, {"text": 3}, {"text": "two"}))
    notes = []
    assert [text for _, text in TextFiles(str(path), on_bad="skip").documents(notes.append)] == ["one", "two"]
    assert len(notes) == 1
    assert re.search(r"left out 2 bad of 4 rows; the first: .*a\.jsonl, line 2: has no field 'text'", notes[0])
    assert re.search(
        r"\(1 of this kind\); .*a\.jsonl, line 3: field 'text' expects text.* \(1 of this kind\)$", notes[0]
    )


def test_a_field_that_no_row_has_names_those_that_are_there_and_throws_nothing_away(tmp_path):
    path = write(tmp_path / "a.jsonl", jsonl({"id": 1, "meta": {"content": "x", "lang": "en"}}, {"id": 2}))
    with pytest.raises(
        DataError,
        match=r"^field=text: .*, line 1: has no field 'text'; allowed: id, meta\.content, meta\.lang; choose one of",
    ):
        texts_of(path)
    message = r"^field=text: no row of .*a\.jsonl has text in 'text'; text fields: meta\.content, meta\.lang$"
    with pytest.raises(DataError, match=message):
        texts_of(path, on_bad="skip")


def test_a_field_may_be_a_path_and_a_name_with_dots_comes_first(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"meta": {"content": "a"}}, {"meta.content": "b", "meta": {"content": "no"}}]
    assert texts_of(write(tmp_path / "a.jsonl", jsonl(*rows)), field="meta.content") == ["a", "b"]
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"meta": [{"content": "a", "n": 1}, {"content": "b", "n": 2}], "id": [1, 2]}), path)
    assert texts_of(path, field="meta.content") == ["a", "b"]
    with pytest.raises(
        DataError, match=r"'meta\.text'; did you mean meta\.content\? It has: meta\.content, meta\.n, id; choose"
    ):
        texts_of(path, field="meta.text")
    with pytest.raises(DataError, match=r"line 1: field 'meta' expects text, got dict"):
        texts_of(path, field="meta")
    pq.write_table(pa.table({"meta.content": ["c"]}), path)
    assert texts_of(path, field="meta.content") == ["c"]


def test_a_path_is_taken_as_it_is_before_it_is_a_glob(tmp_path):
    write(tmp_path / "play[1].txt", "brackets")
    write(tmp_path / "play1.txt", "glob")
    assert texts_of(tmp_path / "play[1].txt") == ["brackets"]
    assert texts_of(tmp_path / "play[12].txt") == ["glob"]
    with pytest.raises(DataError, match=r"^files=\S+ is a folder; name the files in it, as in files='.*\*\.txt'"):
        texts_of(tmp_path)


def test_a_file_with_several_names_counts_once(tmp_path):
    path = write(tmp_path / "one" / "a.txt", "first")
    (tmp_path / "one" / "link.txt").symlink_to(path)
    os.link(path, tmp_path / "one" / "hard.txt")
    spelled = str(tmp_path / "one" / ".." / "one" / "a.txt")
    source = TextFiles([str(tmp_path / "one" / "*.txt"), spelled])
    notes = []
    assert list(source.documents(notes.append)) == [("a.txt", "first")]
    assert len(notes) == 1
    assert re.search(r"a\.txt is the same file as .*a\.txt, and counts once \(3 such\)$", notes[0])
    assert source.fingerprint() == TextFiles(str(path)).fingerprint()


def test_line_ends_are_kept_and_told_or_read_as_one_sign(tmp_path):
    for name, data in (("a.txt", "one\r\ntwo\rthree\n"), ("b.txt", "four\n")):
        write(tmp_path / name, data.encode())
    files, notes = str(tmp_path / "*.txt"), []
    kept, unix = TextFiles(files), TextFiles(files, newlines="unix")
    assert [text for _, text in kept.documents(notes.append)] == ["one\r\ntwo\rthree\n", "four\n"]
    said = "1 of 2 documents has line ends with \\r, which become tokens; set newlines=unix to read them as \\n"
    assert notes == [said]
    assert [text for _, text in unix.documents(notes.append)] == ["one\ntwo\nthree\n", "four\n"]
    assert len(notes) == 1
    assert kept.fingerprint() != unix.fingerprint()
    with pytest.raises(ConfigError, match=r"^newlines=dos; allowed: keep, unix"):
        TextFiles(files, newlines="dos")


def test_an_integer_of_any_length_is_data(tmp_path):
    digits = "7" * 5000
    path = write(tmp_path / "a.jsonl", f'{{"text": "one", "n": {digits}}}\n{{"text": {digits}}}\n')
    assert texts_of(path, on_bad="skip") == ["one"]
    with pytest.raises(DataError, match=r"line 2: field 'text' expects text, got int '7{40}'"):
        texts_of(path)


def test_wrong_options_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"on_bad=skipp; did you mean skip\?"):
        TextFiles("x", on_bad="skipp")
    with pytest.raises(ConfigError, match=r"files is empty"):
        TextFiles([])
    with pytest.raises(DataError, match=r"^files=.*nothing\*\.txt matches no file"):
        texts_of(tmp_path / "nothing*.txt")
    with pytest.raises(DataError, match=r"a\.pdf is no text file aptlab can read; allowed: \.txt"):
        texts_of(write(tmp_path / "a.pdf", "x"))


def test_a_file_that_cannot_be_opened_is_named(tmp_path):
    with pytest.raises(DataError, match=r"gone\.txt cannot be read: No such file"):
        list(read_rows(tmp_path / "gone.txt", "text"))


def hub_with(monkeypatch, load_dataset):
    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))


def test_hub_streams_rows_up_to_the_limit_and_counts_empty_ones(monkeypatch):
    asked = {}

    def load_dataset(repo, config, **options):
        asked.update(options, repo=repo, config=config)
        return ({"text": text} for text in ["a", "", "b", "c"])

    hub_with(monkeypatch, load_dataset)
    notes = []
    source = Hub("owner/name", limit=3, revision="abc")
    assert list(source.documents(notes.append)) == [("train:1", "a"), ("train:3", "b")]
    assert asked == {"repo": "owner/name", "config": None, "split": "train", "revision": "abc", "streaming": True}
    assert notes == ["left out 1 without any text; the first: repo=owner/name, row 2: field 'text' is empty"]
    assert source.fingerprint() != Hub("owner/name", limit=3).fingerprint()


def test_hub_leaves_bad_rows_out_where_it_is_asked_to(monkeypatch):
    rows = [{"text": "a"}, {"text": None}, {"body": "b"}, {"text": 3}, {"text": "c"}]
    hub_with(monkeypatch, lambda *args, **options: iter(rows))
    notes = []
    assert [text for _, text in Hub("a/b", on_bad="skip").documents(notes.append)] == ["a", "c"]
    assert notes == [
        "left out 3 bad of 5 rows; the first: repo=a/b, row 2: field 'text' expects text, got NoneType 'None' "
        "(2 of this kind); repo=a/b, row 3: has no field 'text'; allowed: body (1 of this kind)"
    ]
    with pytest.raises(
        DataError, match=r"^repo=a/b, row 2: field 'text' expects text.*; to leave such rows out, set on_bad=skip"
    ):
        list(Hub("a/b").documents())
    with pytest.raises(
        DataError, match=r"^field=words: no row of repo=a/b has text in 'words'; text fields: text, body$"
    ):
        list(Hub("a/b", field="words", on_bad="skip").documents())
    hub_with(monkeypatch, lambda *args, **options: iter([{"meta": {"content": "deep"}}]))
    assert [text for _, text in Hub("a/b", field="meta.content").documents()] == ["deep"]
    assert Hub("a/b").fingerprint() != Hub("a/b", on_bad="skip").fingerprint()
    # Of a checkpoint that was written before there was `on_bad`.
    assert Hub("a/b").fingerprint() == "c4b42a6439ff2d2ad599ca40647c21ae00087eb0450f939a2a2472eb8985862b"


def test_hub_errors_are_clear(monkeypatch):
    def offline(*args, **options):
        raise ConnectionError("no route")

    hub_with(monkeypatch, offline)
    with pytest.raises(DataError, match=r"^repo=a/b .* cannot be streamed: ConnectionError: no route;"):
        list(Hub("a/b").documents())
    hub_with(monkeypatch, lambda *args, **options: iter([{"txt": "x"}]))
    with pytest.raises(DataError, match=r"^repo=a/b, row 1 has no field 'text'; did you mean txt\?"):
        list(Hub("a/b").documents())
    hub_with(monkeypatch, lambda *args, **options: iter([{"text": 1}]))
    with pytest.raises(DataError, match=r"^repo=a/b, row 1: field 'text' expects text, got int"):
        list(Hub("a/b").documents())
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"source=hub needs the datasets library; pip install 'aptlab\[hf\]'"):
        list(Hub("a/b").documents())
    with pytest.raises(ConfigError, match=r"^limit must be a finite number >= 1, got 0"):
        Hub("a/b", limit=0)


def test_split_moves_no_document_when_others_come_go_or_are_renamed():
    split = Split(val_fraction=0.3)
    texts = [f"text {n}" for n in range(200)]
    sides = {text: split.is_val(text) for text in texts}
    assert {text: split.is_val(text) for text in reversed([*texts, "another"])} == {
        **sides,
        "another": split.is_val("another"),
    }
    assert 0.2 < sum(sides.values()) / len(sides) < 0.4
    assert any(Split(0.3, seed=1).is_val(text) != side for text, side in sides.items())


def test_split_refuses_fractions_that_leave_a_side_empty():
    with pytest.raises(ConfigError, match=r"val_fraction=0 leaves one side of the split empty"):
        Split(val_fraction=0)
    with pytest.raises(ConfigError, match=r"^val_fraction must be in \[0, 1\], got 1\.5"):
        Split(val_fraction=1.5)


def test_rules_of_the_data_layer_import_neither_torch_nor_numpy():
    modules = "aptlab.data.sources, aptlab.data.tokenizers, aptlab.data.store.split, aptlab.data.rows"
    heavy = "torch lightning numpy pyarrow datasets tokenizers"
    code = f"import {modules}, sys; print([m for m in '{heavy}'.split() if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
