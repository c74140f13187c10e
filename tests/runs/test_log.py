"""The log file gets everything, the console short lines, and neither a secret or an advertisement."""

import logging
import warnings

import pytest

from aptlab.errors import AptlabError
from aptlab.runs import RunLog

log = logging.getLogger("aptlab.test")


def test_file_gets_everything_and_console_short_lines(tmp_path, capsys):
    with RunLog.start(tmp_path):
        log.debug("detail")
        log.info("step 1")
        log.warning("careful")
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("old habit", stacklevel=1)
    text = (tmp_path / "log.txt").read_text()
    for part in ("DEBUG aptlab.test: detail", "step 1", "careful", "old habit"):
        assert part in text
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == ["step 1", "warning: careful"]
    assert len(lines) == 3


def test_secrets_do_not_reach_the_log_even_in_a_traceback(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "planted-token-1")
    with RunLog.start(tmp_path):
        try:
            raise RuntimeError("refused planted-token-1")
        except RuntimeError:
            log.exception("login with %s", "planted-token-1")
    text = (tmp_path / "log.txt").read_text()
    assert "RuntimeError: refused ***" in text
    assert "planted-token-1" not in text + capsys.readouterr().err


def test_banner_and_advertisements_of_lightning_are_dropped(tmp_path):
    lightning = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    with RunLog.start(tmp_path, console=False):
        lightning.warning("GPU available: False, used: False")
        lightning.warning("💡 Tip: For seamless cloud logging, try installing [litlogger]")
        lightning.warning("something that matters")
    text = (tmp_path / "log.txt").read_text()
    assert "available" not in text
    assert "Tip" not in text
    assert text.count("something that matters") == 1


@pytest.mark.parametrize("propagate", [True, False])
def test_messages_of_lightning_reach_the_file_once(tmp_path, monkeypatch, propagate):
    monkeypatch.setattr(logging.getLogger("lightning.pytorch"), "propagate", propagate)
    monkeypatch.setattr(logging.getLogger("lightning.pytorch"), "level", logging.INFO)
    with RunLog.start(tmp_path, console=False):
        logging.getLogger("lightning.pytorch.utilities.rank_zero").info("epochs are done")
    assert (tmp_path / "log.txt").read_text().count("epochs are done") == 1


def test_a_second_log_replaces_the_first_and_appends(tmp_path):
    first = RunLog.start(tmp_path, console=False)
    log.info("one")
    with RunLog.start(tmp_path, console=False):
        log.info("two")
    first.close()
    log.info("three")
    text = (tmp_path / "log.txt").read_text()
    assert text.count("one") == 1
    assert text.count("two") == 1
    assert "three" not in text


def test_a_log_that_cannot_be_opened_is_an_error(tmp_path):
    (tmp_path / "log.txt").mkdir()
    with pytest.raises(AptlabError, match=r"cannot write .*log\.txt"):
        RunLog.start(tmp_path)


def test_what_came_before_the_folder_is_in_its_file(tmp_path, capsys):
    with RunLog.start(None):
        log.warning("early")
        with RunLog.start(tmp_path):
            log.info("late")
    text = (tmp_path / "log.txt").read_text()
    assert text.index("early") < text.index("late")
    assert text.count("early") == 1
    assert capsys.readouterr().err.splitlines() == ["warning: early", "late"]
