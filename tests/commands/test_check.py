"""What a configuration needs beside itself is looked for by `check`, and by `train` before torch is there."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from aptlab.commands import check
from aptlab.commands.check import check_command
from aptlab.data.sources import Hub, TextFiles, files
from aptlab.errors import AptlabError, DataError
from aptlab.training.inside import train_inside_process

LONG = "To be, or not to be, that is the question.\n" * 200


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("APTLAB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "good.txt").write_text(LONG)
    (tmp_path / "short.txt").write_text("To be.\n")
    (tmp_path / "tiny.txt").write_text("To be or not to be")
    (tmp_path / "empty.txt").touch()
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    (tmp_path / "a.pdf").touch()
    (tmp_path / "texts").mkdir()
    (tmp_path / "good.jsonl").write_text(json.dumps({"text": LONG}) + "\n")
    (tmp_path / "body.jsonl").write_text(json.dumps({"body": LONG, "id": 1}) + "\n")
    (tmp_path / "broken.jsonl").write_text('{"text": "a"}\n{"text": \n')
    (tmp_path / "number.jsonl").write_text('{"text": 5}\n')
    (tmp_path / "broken.json").write_text("{}")
    (tmp_path / "broken.parquet").write_text("PAR1 nonsense")


FILES = [
    ("gone.txt", r"^files=gone\.txt matches no file"),
    ("none*.txt", r"^files=none\*\.txt matches no file"),
    ("texts", r"^files=texts is a folder; name the files in it"),
    ("a.pdf", r"a\.pdf is no text file aptlab can read; allowed: \.txt"),
    ("empty.txt", r"^files=empty\.txt has no text: the file is empty; give files with text"),
    ("latin.txt", r"latin\.txt, line 1: not UTF-8: byte 0xe9; mend the file or set on_bad=skip"),
    ("body.jsonl", r"^field=text: body\.jsonl, line 1: has no field 'text'; allowed: body, id; choose one of these"),
    ("broken.jsonl", r"broken\.jsonl, line 2: bad JSON"),
    ("number.jsonl", r"number\.jsonl, line 1: field 'text' expects text, got int '5'"),
    ("broken.parquet", r"broken\.parquet, line 1: damaged parquet"),
]


@pytest.mark.parametrize(("files", "message"), FILES)
def test_a_mistake_in_files_is_seen_without_reading_them_whole(files, message):
    (problem,) = TextFiles(files).find_problems()
    assert re.search(message, problem)


BAD = '{"id": 1}\n'
AGREE = [  # the rows of a file, whether bad ones are left out, and whether there is text
    (BAD * 8 + '{"text": "a"}\n', True),
    (BAD * 20_000 + '{"text": "a"}\n', True),
    (BAD * 20_000, False),
    ("\n \n", False),
    ('{"text": ""}\n' * 9, False),
    ("null\n" * 9 + '{"text": "a"}\n', True),
]


@pytest.mark.parametrize(("rows", "good"), AGREE)
def test_check_refuses_a_file_exactly_where_reading_it_does(tmp_path, rows, good):
    (tmp_path / "rows.jsonl").write_text(rows)
    source, said = TextFiles("rows.jsonl", on_bad="skip"), []
    try:
        list(source.documents())
    except DataError as error:
        said = [str(error)]
    assert list(source.find_problems()) == said
    assert bool(said) != good


def test_a_large_file_whose_beginning_is_bad_is_not_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "ENOUGH", 100)
    (tmp_path / "rows.jsonl").write_text(BAD * 20)
    assert list(TextFiles("rows.jsonl", on_bad="skip").find_problems()) == []


MISTAKES = [
    ("data.files=gone.txt", r"^data\.files=gone\.txt matches no file"),
    ("data.files=body.jsonl", r"^source\.field=text: body\.jsonl, line 1: has no field 'text'"),
    ("data.files=texts", r"^data\.files=texts is a folder; .* as in data\.files='texts/\*\*/\*\.txt'$"),
    ("data.files=latin.txt", r"^source: latin\.txt, line 1: not UTF-8.*; mend the file or set source\.on_bad=skip$"),
    (
        "data.files=body.jsonl source.field=id source.on_bad=skip",
        r"^source\.field=id: no row of body\.jsonl has text in 'id'; text fields: body$",
    ),
    (
        "data.files=short.txt",
        r"^data\.files=short\.txt has 7 bytes of text, too few for one row of context=256 tokens; give more text",
    ),
    (
        "data.files=good.txt tokenizer=bytes context=8500",
        r"^context=8500 is longer than the train text, which has 8\d\d\d tokens; largest context: 8\d\d\d, or use more",
    ),
    (
        "data.files=good.txt tokenizer=bytes context=64 data.batch=200",
        r"^data\.batch=200 on 1 device needs 200 rows, but an epoch has 127 rows of context=64; largest batch: 127$",
    ),
    (
        "data.files=good.txt tokenizer=bytes context=64 data.batch=70 device=ddp",
        r"^data\.batch=70 on 2 devices needs 140 rows, but an epoch has 127 rows of context=64; largest batch: 63$",
    ),
    (
        "data.files=tiny.txt tokenizer=bytes context=2 data.batch=1",
        r"^context=2 is longer than the val text, which has 2 tokens; .* or a larger data\.split\.val_fraction$",
    ),
    ("tokenizer=file tokenizer.path=broken.json", r"^tokenizer\.path=broken\.json is no tokenizer\.json"),
    ("data=mixed", r"^data\.rows\.original_len=null, and the rope has none"),
    ("data=mixed rope=yarn rope.original_len=256", r"^data\.rows\.original_len=256 must be shorter than context=256"),
]


@pytest.mark.parametrize(("words", "message"), MISTAKES)
def test_a_mistake_in_the_data_is_told_by_check(words, message):
    with pytest.raises(DataError, match=message):
        check_command("train", words.split())


def test_data_that_are_there_are_no_problem(capsys):
    words = ["data.files=[good.txt,good.jsonl]", "data=mixed", "rope=yarn", "rope.original_len=64"]
    assert check.run(words) == 0
    assert capsys.readouterr().out.startswith("ok: aptlab train data.files=")


def test_all_problems_are_told_at_once():
    words = ["data.files=gone.txt", "tokenizer=file", "tokenizer.path=gone.json"]
    with pytest.raises(DataError, match=r"^what the configuration needs:\ntokenizer\.path=gone.*\ndata\.files=gone"):
        check_command("train", words)


def test_skipped_rows_are_no_problem_and_a_file_of_them_is():
    assert list(TextFiles("broken.jsonl", on_bad="skip").find_problems()) == []
    source = TextFiles("number.jsonl", on_bad="skip")
    (problem,) = source.find_problems()
    assert problem.startswith(
        "files=number.jsonl has no text: left out 1 bad of 1 row; the first: number.jsonl, line 1: "
    )
    assert problem.endswith("field 'text' expects text, got int '5'")


def test_rows_that_can_be_measured_on_need_not_be_trained_on():
    assert check.run(["eval", "data=mixed", "data.batch=2"]) == 0
    with pytest.raises(DataError, match=r"^data\.files=gone\.txt matches no file"):
        check_command("eval", ["data.files=gone.txt"])


def test_another_data_set_needs_its_library(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert list(Hub("a/b").find_problems()) == ["source=hub needs the datasets library; pip install 'aptlab[hf]'"]


def test_a_checkpoint_that_is_not_there_is_told():
    for command in ("train", "eval", "generate"):
        with pytest.raises(AptlabError, match=r"gone\.ckpt: no such file or folder"):
            check_command(command, ["ckpt=gone.ckpt"])


def test_training_tells_it_before_anything_is_written(tmp_path):
    before = sorted(tmp_path.iterdir())
    with pytest.raises(DataError, match=r"^data\.files=gone\.txt matches no file"):
        train_inside_process(["data.files=gone.txt"])
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("command", ["check", "train"])
def test_torch_is_not_loaded_for_it(command):
    code = (
        "import sys; from aptlab.cli import main; words = ['tokenizer=file', 'tokenizer.path=a.pdf'];"
        f"code = main([{command!r}, 'data.files=[body.jsonl,broken.parquet]', *words]);"
        "print(code, [name for name in ('torch', 'lightning', 'datasets') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "2 []\n", done.stderr
    assert "source.field=text: body.jsonl" in done.stderr
