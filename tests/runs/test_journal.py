"""The journal: nothing finished is lost, nothing foreign is mixed in."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys

import pytest

from aptlab.errors import AptlabError
from aptlab.runs.journal import Journal, list_differences
from aptlab.runs.record import seal_record

NAME = "journal.jsonl"
REQUEST = {"weights": "abc", "eval": {"seed": 0, "lengths": [8, 16]}, "rope": None}


def test_what_was_kept_is_there_when_the_journal_is_opened_again(tmp_path):
    journal = Journal(tmp_path / NAME, REQUEST)
    assert journal.records == []
    journal.append({"a": 1, "text": "é\n"})
    journal.append({"a": 2.5})
    journal = Journal(tmp_path / NAME, REQUEST)
    assert journal.records == [{"a": 1, "text": "é\n"}, {"a": 2.5}]
    journal.append({"a": 3})
    lines = (tmp_path / NAME).read_text().splitlines()
    assert json.loads(lines[0]) == seal_record({"request": REQUEST})
    assert len(lines) == 4


@pytest.mark.parametrize("torn", [b'{"a": 2', b'{"a"', b"\xc3", b'{"a": 2}'])
def test_a_torn_last_line_is_dropped_and_written_anew(tmp_path, torn):
    journal = Journal(tmp_path / NAME, REQUEST)
    journal.append({"a": 1})
    with (tmp_path / NAME).open("ab") as file:
        file.write(torn)
    journal = Journal(tmp_path / NAME, REQUEST)
    assert journal.records == [{"a": 1}]
    journal.append({"a": 2})
    journal = Journal(tmp_path / NAME, REQUEST)
    assert journal.records == [{"a": 1}, {"a": 2}]


def test_a_torn_first_line_is_a_new_journal(tmp_path):
    (tmp_path / NAME).write_bytes(b'{"request": {')
    journal = Journal(tmp_path / NAME, REQUEST)
    assert journal.records == []
    assert (tmp_path / NAME).read_text() == json.dumps(seal_record({"request": REQUEST})) + "\n"


def test_lines_survive_a_kill(tmp_path):
    code = (
        "import os, signal, sys; from pathlib import Path; from aptlab.runs.journal import Journal\n"
        "journal = Journal(Path(sys.argv[1], 'journal.jsonl'), {})\n"
        "for n in range(5): journal.append({'n': n})\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert ended.returncode == -signal.SIGKILL
    journal = Journal(tmp_path / NAME, {})
    assert journal.records == [{"n": n} for n in range(5)]


def test_another_request_is_an_error_that_names_what_differs(tmp_path):
    Journal(tmp_path / NAME, REQUEST)
    other = {**REQUEST, "eval": {"seed": 1, "lengths": [8]}}
    with pytest.raises(AptlabError, match=r"results of another request; what differs:") as error:
        Journal(tmp_path / NAME, other)
    assert "eval.seed: 0 -> 1" in str(error.value)
    assert "eval.lengths: [8, 16] -> [8]" in str(error.value)
    assert "weights" not in str(error.value)
    assert "choose another out=" in str(error.value)


def test_keys_that_may_differ_do_not_count(tmp_path):
    Journal(tmp_path / NAME, {**REQUEST, "host": "a"}).append({"n": 1})
    with pytest.raises(AptlabError, match='host: "a" -> "b"'):
        Journal(tmp_path / NAME, {**REQUEST, "host": "b"})
    assert Journal(tmp_path / NAME, {**REQUEST, "host": "b"}, ignored=["host"]).records == [{"n": 1}]


def test_a_line_damaged_in_the_middle_is_an_error_with_its_number(tmp_path):
    journal = Journal(tmp_path / NAME, REQUEST)
    journal.append({"a": 1})
    path = tmp_path / NAME
    path.write_bytes(path.read_bytes() + b"???\n" + b'{"a": 2}\n')
    with pytest.raises(
        AptlabError,
        match=r"journal\.jsonl, line 3 is damaged; delete that line \(sed -i 3d\) to do its part again, or choose",
    ):
        Journal(tmp_path / NAME, REQUEST)


def test_a_file_of_something_else_is_refused(tmp_path):
    (tmp_path / NAME).write_text('{"n": 1}\n')
    with pytest.raises(AptlabError, match=r"does not begin with a request; delete it, or choose another out"):
        Journal(tmp_path / NAME, REQUEST)


@pytest.mark.skipif(os.name != "posix", reason="a folder in place of a file is told apart on POSIX")
def test_a_place_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / NAME).mkdir()
    with pytest.raises(AptlabError, match=r"cannot read .*journal\.jsonl: .*; choose another out"):
        Journal(tmp_path / NAME, REQUEST)
    with pytest.raises(
        AptlabError, match=r"cannot write .*journal\.jsonl: .*; free some space and repeat .*, or choose another out"
    ):
        Journal(tmp_path / "missing" / NAME, REQUEST)


def test_differences_name_added_and_removed_keys():
    assert list_differences({"a": 1, "b": {"c": 2}}, {"b": {"c": 2, "d": [1]}}) == ["a: 1 -> null", "b.d: null -> [1]"]
    assert list_differences(REQUEST, REQUEST) == []


def test_events_without_an_identity_are_records_alone(tmp_path):
    journal = Journal(tmp_path / NAME)
    assert not (tmp_path / NAME).exists()
    journal.append({"event": "started"})
    assert (tmp_path / NAME).read_text() == json.dumps(seal_record({"event": "started"})) + "\n"
    assert Journal(tmp_path / NAME).records == [{"event": "started"}]


def test_a_lenient_journal_leaves_damaged_lines_out_and_says_so(tmp_path, caplog):
    (tmp_path / NAME).write_text('{"n": 1}\n{"n": {"n": 2}\n{"n": 3}\n{"n"')
    with caplog.at_level(logging.WARNING, "aptlab"):
        journal = Journal(tmp_path / NAME, lenient=True)
    assert journal.records == [{"n": 1}, {"n": 3}]
    assert [record.getMessage() for record in caplog.records] == [f"{tmp_path / NAME}, line 2 is damaged and left out"]
    journal.append({"n": 4})
    assert (tmp_path / NAME).read_text().endswith('{"n": 3}\n' + json.dumps(seal_record({"n": 4})) + "\n")


def test_the_first_line_of_an_older_version_may_be_upgraded(tmp_path):
    (tmp_path / NAME).write_text('{"format": 1, "seed": 0}\n{"n": 1}\n')
    journal = Journal(tmp_path / NAME, {"format": 1, "seed": 0}, upgrade=lambda line: {"request": line})
    assert journal.records == [{"n": 1}]
    with pytest.raises(AptlabError, match=r"what differs:\n  seed: 0 -> 1\nrepeat that request to go on, or start"):
        Journal(tmp_path / NAME, {"format": 1, "seed": 1}, upgrade=lambda line: {"request": line}, afresh="start anew")


def test_a_journal_without_a_file_keeps_its_records_in_memory():
    journal = Journal(None, REQUEST)
    journal.append({"n": 1})
    assert (journal.path, journal.records) == (None, [{"n": 1}])


def test_numbers_come_back_exactly(tmp_path):
    Journal(tmp_path / NAME, REQUEST).append({"n": [0.1 + 0.2, float("inf")]})
    assert Journal(tmp_path / NAME, REQUEST).records == [{"n": [0.1 + 0.2, float("inf")]}]
