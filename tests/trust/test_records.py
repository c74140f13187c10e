"""Every record that is read again is verified by who reads it: a changed digit is named and never used."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import pytest

from aptlab.data.store.plan import open_or_make_plan, plan_split
from aptlab.data.store.split import Split
from aptlab.data.tokenizers import BPE
from aptlab.errors import AptlabError
from aptlab.loggers import CSVMetrics
from aptlab.report.write import report_comparison
from aptlab.runs import MetricsTable, Result, Run, RunFolder, find_runs
from aptlab.runs.journal import Journal
from aptlab.runs.record import open_json_record, read_record, seal_record, write_json_record, write_yaml_record
from aptlab.search.evaluation_cache import SearchJob
from aptlab.search.journal import SearchJournal
from aptlab.sweep.folder import SweepFolder
from aptlab.sweep.job import SweepJob

DIGIT = re.compile(rb"\d")


def change_digits(path: Path):
    """The file with one digit changed, for every digit that it has; it is left as it was."""
    data = path.read_bytes()
    for found in DIGIT.finditer(data):
        at = found.start()
        path.write_bytes(data[:at] + b"%d" % ((int(data[at : at + 1]) + 1) % 10) + data[at + 1 :])
        yield at
    path.write_bytes(data)


@pytest.fixture
def run(tmp_path):
    """A finished run without training: records, and a table of five rows."""
    with RunFolder.create(run_dir=tmp_path / "runs" / "one") as folder:
        config = {"seed": 3, "rope": {"factor": 4.5}, "context": 128}
        folder.write_start(config=config, overrides=["rope.factor=4.5", "seed=3"], choices={"rope": "v2"}, seed=3)
        result = Result(job="train", seed=3, steps=40, metrics={"val/loss": 2.25}, overrides=["rope.factor=4.5"])
        folder.write_result(result)
        logger = CSVMetrics(folder.path)
        for step in range(1, 6):
            logger.log_metrics({"epoch": 0, "train/loss": 4.5 / step}, step)
        logger.finalize("success")
    return folder.path


@pytest.mark.parametrize("name", ["result.json", "config.yaml", "overrides.yaml", "choices.yaml"])
def test_a_digit_changed_anywhere_in_a_record_is_named_and_the_run_left_out(name, run, caplog):
    count = 0
    for at in change_digits(run / name):
        count += 1
        with pytest.raises(AptlabError) as error:
            Run.read(run)
        assert str(run / name) in str(error.value), at
        assert "\n" not in str(error.value)
    assert count > 10
    (run / name).write_bytes((run / name).read_bytes().replace(b"3", b"4").replace(b"2", b"7"))
    with caplog.at_level(logging.WARNING, "aptlab"):
        assert find_runs([run.parent]) == []
    assert len(caplog.messages) == 1
    assert re.search(
        rf"skipped .*one: .*{name} is damaged: .*checksum; if you changed it yourself, take out", caplog.text
    )


def test_a_changed_environment_is_named(run):
    path = run / "environment.json"
    path.write_text(path.read_text().replace('"seed": 3', '"seed": 4'))
    with pytest.raises(AptlabError, match=r"environment\.json is damaged: .*take out check, else leave the run out"):
        Run.read(run)


def test_compare_never_uses_a_changed_number(run, tmp_path, caplog):
    path = run / "result.json"
    path.write_text(path.read_text().replace("2.25", "1.25"))
    with caplog.at_level(logging.WARNING, "aptlab"), pytest.raises(AptlabError, match="no finished run"):
        report_comparison([run.parent], tmp_path / "out")
    assert "result.json is damaged: its values do not have its checksum" in caplog.text


def test_a_damaged_result_is_kept_aside_when_its_run_is_trained_further(run, caplog):
    path = run / "result.json"
    damaged = path.read_text().replace("2.25", "1.25")
    path.write_text(damaged)
    with RunFolder.create(run_dir=run) as folder:
        folder.reopen()
    assert not path.exists()
    assert (run / "result-damaged.json").read_text() == damaged
    assert "not used: " in caplog.text


def test_a_record_may_be_written_another_way_and_stays_readable(run):
    path = run / "result.json"
    values = json.loads(path.read_text())
    assert (values["metrics"], next(iter(values)), list(values)[-1]) == ({"val/loss": 2.25}, "status", "check")
    path.write_text(json.dumps(dict(sorted(values.items()))))
    assert Result.read(run).metrics == {"val/loss": 2.25}
    del values["check"]
    path.write_text(json.dumps(values | {"steps": 41}))  # on purpose, as the message says
    assert Result.read(run).steps == 41


def test_records_of_an_earlier_version_are_taken_and_that_is_said(run, caplog):
    for name in ("config.yaml", "overrides.yaml", "choices.yaml"):
        (run / name).write_text((run / name).read_text().partition("\n")[2])
    for name in ("result.json", "environment.json"):
        values = json.loads((run / name).read_text())
        del values["check"]
        (run / name).write_text(json.dumps(values))
    (run / "metrics.csv.sum").unlink()
    with caplog.at_level(logging.INFO, "aptlab"):
        (found,) = find_runs([run])
    assert caplog.messages == [f"{run} has records of an earlier version, without checksums: taken as they are"]
    assert found.series("train/loss")[1][0] == 4.5


@pytest.mark.parametrize("suffix", ["json", "yaml"])
def test_every_cut_of_a_record_is_refused(suffix, tmp_path):
    path = tmp_path / f"record.{suffix}"
    (write_json_record if suffix == "json" else write_yaml_record)(path, {"a": 1, "b": [2, 3], "c": {"d": "e"}})
    data = path.read_bytes()
    assert read_record(path, dict) == ({"a": 1, "b": [2, 3], "c": {"d": "e"}}, True)
    for size in range(len(data) - 1):
        path.write_bytes(data[:size])
        with pytest.raises(AptlabError, match=rf"record\.{suffix} (is damaged|cannot be read|should hold a dict)"):
            read_record(path, dict)


# metrics.csv


def test_a_digit_changed_anywhere_in_the_table_never_gives_another_number(run, caplog):
    path = run / "metrics.csv"
    whole = MetricsTable.read(path)
    assert (whole.problems, len(whole.rows)) == ([], 5)
    for at in change_digits(path):
        table = MetricsTable.read(path)
        assert all(row == whole.rows[step] for step, row in table.rows.items()), at
        assert len(table.rows) == 4
        assert "does not have its checksum (if you changed it yourself, delete metrics.csv.sum)" in table.problems[0]
    path.write_text(path.read_text().replace("2.25", "1.25"))
    with caplog.at_level(logging.WARNING, "aptlab"):
        assert Run.read(run).series("train/loss") == ([1, 3, 4, 5], [4.5, 1.5, 1.125, 0.9])
    assert "metrics.csv: step 2 (line 3) does not have its checksum" in caplog.text


def test_a_changed_or_lost_line_of_the_table_is_said(run):
    path, text = run / "metrics.csv", (run / "metrics.csv").read_text()
    path.write_text(text.replace("train/loss", "train/lass"))
    assert MetricsTable.read(path).problems[0].startswith("the first line does not have its checksum")
    path.write_text("".join(text.splitlines(keepends=True)[:3]))
    assert MetricsTable.read(path).problems == ["rows are missing: step 3, 4, 5"]
    path.write_text("")
    assert MetricsTable.read(path).problems == ["rows are missing: step 1, 2, 3 and 2 more"]


def test_a_table_goes_on_after_a_resume_with_its_sums_and_keeps_a_damaged_one_aside(run, caplog):
    path = run / "metrics.csv"
    damaged = path.read_text().replace("2.25", "1.25")
    path.write_text(damaged)
    logger = CSVMetrics(run)
    with caplog.at_level(logging.WARNING, "aptlab"):
        logger.resume(4)
    logger.log_metrics({"train/loss": 7.0}, 5)
    logger.log_metrics({"new": 1.0}, 6)
    logger.finalize("success")
    table = MetricsTable.read(path)
    assert (table.problems, list(table.rows)) == ([], [1, 3, 4, 5, 6])
    assert "metrics.csv repaired: step 2 (line 3) does not have its checksum" in caplog.text
    assert "and is left out; the file as it was is metrics-damaged.csv now" in caplog.text
    assert (run / "metrics-damaged.csv").read_text() == damaged


def test_a_table_of_an_earlier_version_gets_sums_when_it_goes_on(run):
    path = run / "metrics.csv"
    (run / "metrics.csv.sum").unlink()
    assert (MetricsTable.read(path).sealed, MetricsTable.read(path).problems) == (False, [])
    logger = CSVMetrics(run)
    logger.log_metrics({"train/loss": 1.0}, 6)
    logger.finalize("success")
    table = MetricsTable.read(path)
    assert (table.sealed, table.problems, len(table.rows)) == (True, [], 6)


def test_a_kill_between_sum_and_row_leaves_no_row_that_is_refused(run, monkeypatch):
    """Sums are written first, also torn ones, and a row may have several."""
    path, sums = run / "metrics.csv", run / "metrics.csv.sum"
    with sums.open("a") as file:
        file.write("deadbeef 6\n12ab")
    assert MetricsTable.read(path).problems == ["rows are missing: step 6"]
    logger = CSVMetrics(run)
    for step in (6, 7):
        logger.log_metrics({"train/loss": 1.0}, step)
        logger.save()
        logger.log_metrics({"epoch": 1}, step)
        logger.save()
    assert MetricsTable.read(path).problems == []
    assert len(MetricsTable.read(path).rows) == 7


# Journals


def test_a_digit_changed_in_a_search_journal_is_refused_with_its_line(tmp_path):
    path, request = tmp_path / "journal.jsonl", {"target": 64, "seed": 1}
    journal = SearchJournal(path, request)
    for number in range(4):
        journal.add(SearchJob((1.0, 2.5), 64, (number,)), (3.25 + number,))
    journal.add_baseline("yarn", [(1.5, 2.5)])
    known = SearchJournal(path, request).known
    count = 0
    for at in change_digits(path):
        count += 1
        with pytest.raises(AptlabError, match=r"journal\.jsonl(, line \d+ is damaged; delete th| holds the results)"):
            SearchJournal(path, request)
        assert at >= 0
    assert count > 60
    assert SearchJournal(path, request).known == known


def test_a_digit_changed_in_the_events_of_a_sweep_leaves_the_line_out(tmp_path, caplog):
    job = SweepJob(("seed=1",), "k" * 12, ("seed=1",), 1)
    folder = SweepFolder.open(tmp_path, "s")
    folder.write([job], kind="grid")
    folder.journal("failed", job, code=1)
    folder.close()
    for _ in change_digits(folder.path / "journal.jsonl"):
        caplog.clear()
        opened = SweepFolder.open(tmp_path, "s")
        assert opened.last_events() == {}
        opened.close()
        assert re.fullmatch(r".*journal\.jsonl, line 1 is damaged and left out", caplog.messages[0])
    for _ in change_digits(folder.path / "sweep.yaml"):
        with pytest.raises(AptlabError, match=r"sweep\.yaml is damaged: .*else use sweep\.fresh=true or another sweep"):
            SweepFolder.open(tmp_path, "s")


def test_lines_of_an_earlier_version_are_taken_and_that_is_said_once(tmp_path, caplog):
    path = tmp_path / "journal.jsonl"
    path.write_text('{"request": {"a": 1}}\n{"n": 1}\n')
    journal = Journal(path, {"a": 1})
    journal.append({"n": 2})
    caplog.clear()
    with caplog.at_level(logging.INFO, "aptlab"):
        assert Journal(path, {"a": 1}).records == [{"n": 1}, {"n": 2}]
    assert caplog.messages == [f"{path}: 2 of 3 lines are of an earlier version, without checksums: taken as they are"]


# The tokenizer and the split in the cache

TEXTS = [f"some words {n} and more of them " * 20 for n in range(12)]


def prepare(folder):
    return BPE(vocab=300).prepare(lambda: iter(TEXTS), key="k", folder=folder)


@pytest.mark.parametrize("damage", ["cut", "empty", "digit", "text", "no utf-8", "sum"])
def test_a_damaged_tokenizer_of_the_cache_is_trained_again_with_a_line(damage, tmp_path, caplog):
    whole = prepare(tmp_path).state()
    (path,) = tmp_path.glob("*.json")
    data = path.read_bytes()
    at = re.search(rb'"vocab":\s*{\s*"<eos>":\s*0', data).end() - 1
    sums = path.with_name(f"{path.name}.sha256")
    changed = {"cut": data[: len(data) // 2], "empty": b"", "digit": data[:at] + b"7" + data[at + 1 :]}
    changed |= {"text": b"[1, 2]", "no utf-8": b"\xff" + data, "sum": data}
    path.write_bytes(changed[damage])
    if damage == "sum":
        sums.write_text("0" * 64)
    with caplog.at_level(logging.INFO, "aptlab"):
        assert prepare(tmp_path).state() == whole
    assert len(caplog.messages) == 1
    assert re.search(r"the tokenizer .*\.json is damaged \(.*\); training it again", caplog.messages[0])
    assert path.read_bytes() == data
    assert sorted(name.suffix for name in tmp_path.iterdir() if name.suffix != ".lock") == [".json", ".sha256"]


def test_a_tokenizer_of_an_earlier_version_is_taken_once_and_a_cut_one_trained_again(tmp_path, caplog):
    whole = prepare(tmp_path).state()
    (path,) = tmp_path.glob("*.json")
    path.with_name(f"{path.name}.sha256").unlink()
    with caplog.at_level(logging.INFO, "aptlab"):
        assert prepare(tmp_path).state() == prepare(tmp_path).state() == whole
    assert len(caplog.messages) == 1
    assert "is of an earlier version, without a checksum; taken as it is, and given one" in caplog.messages[0]
    path.with_name(f"{path.name}.sha256").unlink()
    path.write_bytes(path.read_bytes()[:-9])
    assert prepare(tmp_path).state() == whole


def test_a_digit_changed_in_the_plan_of_a_split_finds_the_split_again(tmp_path, caplog):
    options = {"folder": tmp_path, "key": "k"}
    plan = open_or_make_plan(Split(0.05), TEXTS, **options)
    (path,) = tmp_path.glob("*.json")
    values = json.loads(path.read_text())
    values["blank"] += 1
    path.write_text(json.dumps(values))
    assert open_or_make_plan(Split(0.05), TEXTS, **options) == plan == plan_split(Split(0.05), TEXTS)
    assert re.search(r"the split of the text is found again: .*\.json is damaged", caplog.text)


def test_a_checksum_whose_name_was_changed_is_damage():
    sealed = seal_record({"a": 1, "name": "0123456789abcdef"})
    renamed = {("chfck" if key == "check" else key): value for key, value in sealed.items()}
    with pytest.raises(AptlabError, match=r"result\.json is damaged: chfck is the name of its checksum"):
        open_json_record(renamed, "result.json")
    assert open_json_record({"a": 1, "name": "0123456789abcdef"}, "result.json")[1] is False
