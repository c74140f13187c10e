"""A record that is valid JSON or YAML of another shape is one line that names the file and the key."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aptlab.checkpoint.manifest import Manifest, check_values
from aptlab.errors import AptlabError, CheckpointError
from aptlab.evals.base import EvalFolder
from aptlab.evals.retrieval import SHAPE as RETRIEVAL
from aptlab.evals.sliding import SHAPE as SLIDING
from aptlab.runs import Run, RunFolder
from aptlab.runs.journal import Journal
from aptlab.runs.record import compute_check, find_shape_problem
from aptlab.search.journal import SearchJournal
from aptlab.sweep.folder import SweepFolder

VALUES = ("[]", "[[[1]]]", "3", '"text"', "null", "true", "{}", '{"a": [1]}')
RESULT = {"job": "train", "seed": 1}
SWEEP = {"index": 0, "key": "k", "folder": "000-a"}


def read_one_line(read, path: Path) -> str:
    """The message of an error that a reader raises: one line, with the file's name."""
    with pytest.raises(AptlabError) as error:
        read()
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def run(tmp_path):
    with RunFolder.create(run_dir=tmp_path / "run") as folder:
        folder.write_start(config={"a": 1}, overrides=["a=1"], choices={}, seed=1)
    return folder.path


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ([1], "should hold a dict, it holds a list"),
        ({"job": "x"}, "a result without seed"),
        (RESULT | {"steps": "9"}, "steps has the wrong kind: str"),
        (RESULT | {"steps": True}, "steps has the wrong kind: bool"),
        (RESULT | {"seed": None}, "seed has the wrong kind: NoneType"),
        (RESULT | {"status": 3}, "status has the wrong kind: int"),
        (RESULT | {"skipped_steps": [1]}, "skipped_steps has the wrong kind: list"),
        (RESULT | {"metrics": {"val/loss": "2.5"}}, "metrics holds a str"),
        (RESULT | {"metrics": [2.5]}, "metrics has the wrong kind: list"),
        (RESULT | {"lengths": [3]}, "lengths holds a int"),
        (RESULT | {"overrides": [3]}, "overrides holds a int"),
        (RESULT | {"origin": "x"}, "origin has the wrong kind: str"),
    ],
)
def test_a_result_of_another_shape(values, key, run):
    path = run / "result.json"
    path.write_text(json.dumps(values))
    assert key in read_one_line(lambda: Run.read(run), path)


@pytest.mark.parametrize("name", ["config.yaml", "overrides.yaml", "choices.yaml", "environment.json"])
def test_the_other_records_of_a_run_of_another_shape(name, run):
    right = (dict, list)[name == "overrides.yaml"]
    for text in VALUES:
        (run / name).write_text(text)
        value = json.loads(text)
        if isinstance(value, right) and value != [[[1]]]:
            Run.read(run)
        else:
            assert "should hold a" in read_one_line(lambda: Run.read(run), run / name)


def test_a_command_line_of_another_shape(run):
    path = run / "environment.json"
    path.write_text('{"command": 7}')
    assert "command should be list, it is int" in read_one_line(lambda: Run.read(run), path)


@pytest.mark.parametrize("text", VALUES)
def test_a_manifest_of_another_shape(text):
    with pytest.raises(CheckpointError, match=r"^x\.json is damaged \(not a manifest: (it is a JSON|check is missing)"):
        Manifest.parse(text, "x.json")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"bytes": "12"}, "bytes should be int, it is str"),
        ({"step": None}, "step should be int, it is NoneType"),
        ({"sha256": 7}, "sha256 should be str, it is int"),
        ({"format": []}, "format should be int, it is list"),
        ({"metric": "low"}, "metric should be int or float, it is str"),
        ({"config": [1]}, "config should be dict, it is list"),
        ({"overrides": {}}, "overrides should be list, it is dict"),
    ],
)
def test_a_manifest_with_a_value_of_another_kind(change, problem):
    plain = {"sha256": "a", "bytes": 1, "step": 2, **change}
    text = json.dumps({"check": check_values(plain), **plain})
    with pytest.raises(CheckpointError, match=rf"x\.json is damaged \(not a manifest: {problem}"):
        Manifest.parse(text, "x.json")
    del plain["sha256"]
    text = json.dumps({"check": check_values(plain), **plain})
    with pytest.raises(CheckpointError, match=r"not a manifest: sha256 is missing"):
        Manifest.parse(text, "x.json")


LINES = [
    ('{"factors": 3, "length": 64, "samples": [0], "values": [1.0]}', "factors should be list, it is int"),
    ('{"factors": [1.0], "samples": [0], "values": [1.0]}', "length is missing"),
    ('{"factors": ["a"], "length": 64, "samples": [0], "values": [1.0]}', "should be numbers"),
    ('{"factors": [1.0], "length": 64, "samples": [0], "values": []}', "not as many values as samples"),
    ('{"baseline": "yarn", "losses": [1.0]}', "losses should be pairs of numbers"),
    ('{"baseline": [], "losses": []}', "baseline should be str, it is list"),
    ("[1]", "line 2 is damaged;"),
    ("7", "line 2 is damaged;"),
]


@pytest.mark.parametrize(("line", "problem"), LINES)
def test_a_line_of_a_search_of_another_shape(line, problem, tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_text(f'{{"request": {{"format": 1, "a": 1}}}}\n{line}\n')
    message = read_one_line(lambda: SearchJournal(path, {"a": 1}), path)
    assert "line 2 is damaged" in message
    assert problem in message


@pytest.mark.parametrize("first", ["[]", "3", "{}", '{"request": 7}', '{"request": [1]}', '{"request": {"eval": 3}}'])
def test_a_first_line_of_another_shape(first, tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_text(first + "\n")
    with pytest.raises(AptlabError, match=r"journal\.jsonl(, line 1 is damaged| does not begin with a request| holds)"):
        Journal(path, {"eval": {"a": 1}})
    folder = EvalFolder(tmp_path)
    with pytest.raises(AptlabError, match=r"journal\.jsonl"), folder.open_journal({"eval": {"a": 1}}):
        pass


@pytest.mark.parametrize("shape", [SLIDING, RETRIEVAL], ids=["sliding", "retrieval"])
def test_a_line_of_an_eval_of_another_shape(shape, tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_text('{"request": {"a": 1}}\n{"length": "x"}\n')

    def read():
        with EvalFolder(tmp_path).open_journal({"a": 1}, shape):
            pass

    assert "line 2 is damaged (" in read_one_line(read, path)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("- 1\n", "should hold a dict, it holds a list"),
        ("3\n", "should hold a dict, it holds a int"),
        ("kind: grid\n", "jobs is missing"),
        ("kind: [1]\njobs: []\n", "kind should be str, it is list"),
        ("kind: grid\njobs: 4\n", "jobs should be list, it is int"),
        ("kind: grid\njobs: [4]\n", r"jobs[0] should be dict, it is int"),
        (json.dumps({"kind": "grid", "jobs": [SWEEP, {"index": 1, "key": "k"}]}), "jobs[1].folder is missing"),
        (json.dumps({"kind": "grid", "jobs": [SWEEP | {"index": "1"}]}), "jobs[0].index should be int, it is str"),
        (json.dumps({"kind": "grid", "jobs": [SWEEP | {"folder": "../../x"}]}), "no name of a folder"),
        (json.dumps({"kind": "optuna", "jobs": []}), "is a sweep of kind optuna, not grid"),
    ],
)
def test_a_sweep_of_another_shape(text, problem, tmp_path):
    folder = tmp_path / "s"
    folder.mkdir()
    (folder / "sweep.yaml").write_text(text)
    message = read_one_line(lambda: SweepFolder.open(tmp_path, "s"), folder)
    assert problem in message
    assert "use " in message
    SweepFolder.open(tmp_path, "other").close()


def test_events_of_another_shape_are_left_out(tmp_path, caplog):
    folder = SweepFolder.open(tmp_path, "s")
    lines = ['{"job": [1], "event": "failed"}', '{"job": 1}', '{"job": 2, "event": "failed"}']
    (folder.path / "journal.jsonl").write_text("".join(f"{line}\n" for line in lines))
    assert folder.last_events() == {2: "failed"}
    folder.close()
    assert "line 1 is damaged (job should be int, it is list) and left out" in caplog.text


def test_what_a_shape_says():
    assert find_shape_problem({"a": 1.5, "b": None}, {"a": (int, float), "b": type(None)}) is None
    assert find_shape_problem(True, int) == "it should be int, it is bool"
    assert find_shape_problem({"a": {"b": []}}, {"a": {"b": {}}}) == "a.b should be dict, it is list"
    assert compute_check({"a": 1, "b": 2}) == compute_check({"b": 2, "a": 1}) != compute_check({"a": 1, "b": 2.5})
