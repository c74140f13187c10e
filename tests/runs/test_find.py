"""Runs are found again, and what is damaged is named and left out."""

import json
import logging

import pytest

from aptlab.errors import AptlabError
from aptlab.runs import MetricsTable, Result, Run, RunFolder, find_runs
from aptlab.runs.record import write_json_record


@pytest.fixture
def runs(tmp_path):
    for number in range(3):
        with RunFolder.create(run_dir=tmp_path / "sweep" / f"{number}") as folder:
            folder.write_start(config={"seed": number}, overrides=[f"seed={number}"], choices={"rope": "yarn"})
            if number < 2:
                folder.write_result(Result(job="train", seed=number, metrics={"val/loss": 2.0 + number}))
            inner = folder.path / "wandb" / "run-1" / "files"
            inner.mkdir(parents=True)
            (inner / "config.yaml").write_text("a: 1")
    return tmp_path / "sweep"


def test_finished_and_unfinished_runs_are_found_once(runs):
    found = find_runs([runs, runs.parent, str(runs / "*"), runs / "0" / "result.json"])
    assert [run.name for run in found] == ["0", "1", "2"]
    assert [run.finished for run in found] == [True, True, False]
    assert found[1].overrides == ["seed=1"]
    assert found[1].choices == {"rope": "yarn"}
    assert found[1].result is not None
    assert found[1].result.metrics == {"val/loss": 3.0}


def test_a_path_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(AptlabError, match="nothing: no such folder; give a run folder"):
        find_runs([tmp_path / "nothing"])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("result.json", b'{"job": "tr'),
        ("result.json", b"[1]"),
        ("result.json", b'{"job": "train", "seed": 1, "metrics": 3}'),
        ("config.yaml", b"a: [1"),
        ("overrides.yaml", b"just text"),
        ("environment.json", b"\xff\xfe"),
    ],
)
def test_a_damaged_run_is_skipped_with_a_warning_that_names_the_file(runs, caplog, name, content):
    (runs / "1" / name).write_bytes(content)
    with caplog.at_level(logging.WARNING, logger="aptlab"):
        assert [run.name for run in find_runs([runs])] == ["0", "2"]
    assert "skipped" in caplog.text
    assert f"1/{name}" in caplog.text


def test_a_result_of_a_later_version_is_read(runs):
    values = json.loads((runs / "0" / "result.json").read_text())
    write_json_record(runs / "0" / "result.json", {"news": 1, **values})
    assert Run.read(runs / "0").finished


def test_metrics_come_as_columns_with_gaps(runs):
    (runs / "0" / "metrics.csv").write_text("step,epoch,loss,val/loss\n1,0,2.5,\n2,0,,3\n3,0,nan,\n")
    run = Run.read(runs / "0")
    assert run.metrics()["val/loss"] == [None, 3.0, None]
    assert run.metrics()["step"] == [1.0, 2.0, 3.0]
    assert run.series("val/loss") == ([2], [3.0])
    with pytest.raises(AptlabError, match=r"missing: .*metrics\.csv has no such column; allowed: "):
        run.series("missing")
    assert Run.read(runs / "1").metrics() == {}


def test_a_torn_table_gives_its_whole_rows_and_a_warning(runs, caplog):
    (runs / "0" / "metrics.csv").write_bytes(b"step,epoch,loss\n1,0,2.5\n\x00\x00,,\nx,0,1\n2,0,abc\n4,0,1\n5,0")
    with caplog.at_level(logging.WARNING, logger="aptlab"):
        assert Run.read(runs / "0").series("loss") == ([1, 4], [2.5, 1.0])
    told = "step 5, the last line, was cut off and is left out; line 3 is damaged and left out; line 4 is damaged and "
    assert f"metrics.csv: {told}left out\n" in caplog.text
    assert (
        "step 2 (line 5) holds text that is no number and is left out"
        in MetricsTable.read(runs / "0" / "metrics.csv").problems
    )


def test_a_table_without_header_is_empty(tmp_path):
    (tmp_path / "metrics.csv").write_text("1,2,3\n")
    table = MetricsTable.read(tmp_path / "metrics.csv")
    assert table.rows == {}
    assert table.problems == ["the first line is no header, so no row can be read"]
