"""metrics.csv stays whole: through new columns, resumes, torn lines and full disks."""

import logging
import random

import pytest
import torch

from aptlab.errors import AptlabError
from aptlab.loggers import CSVMetrics, Tracking
from aptlab.loggers import metrics as module
from aptlab.runs import MetricsTable


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.csv"


def logged(folder, rows):
    logger = CSVMetrics(folder)
    for step, values in rows:
        logger.log_metrics(values, step)
    logger.finalize("success")
    return logger


def test_values_of_one_step_share_a_row(tmp_path, path):
    logged(tmp_path, [(1, {"epoch": 0, "loss": 2.5}), (1, {"lr": 0.1}), (2, {"loss": torch.tensor(2.0)})])
    assert path.read_text() == "step,epoch,loss,lr\n1,0,2.5,0.1\n2,,2.0,\n"


def test_numbers_read_back_exactly(tmp_path, path):
    values = [0.1 + 0.2, 1e-300, float("inf"), -0.0, 123456789.0]
    logged(tmp_path, [(i, {"x": value}) for i, value in enumerate(values)])
    read = MetricsTable.read(path).numbers()["x"]
    assert [repr(value) for value in read] == [repr(value) for value in values]


def test_a_new_column_rewrites_the_file(tmp_path, path):
    logged(tmp_path, [(1, {"loss": 2.5}), (2, {"loss": 2.0}), (2, {"val/loss": 3.0}), (3, {"a,b": 1})])
    assert path.read_text() == 'step,epoch,loss,val/loss,"a,b"\n1,,2.5,,\n2,,2.0,3.0,\n3,,,,1\n'


def test_a_late_value_joins_its_step(tmp_path, path):
    logged(tmp_path, [(1, {"loss": 2.5}), (3, {"loss": 2.0}), (1, {"loss": 9.0}), (2, {"loss": 1.0})])
    assert MetricsTable.read(path).numbers()["loss"] == [9.0, 1.0, 2.0]


def test_resume_drops_later_rows_and_goes_on(tmp_path, path):
    logged(tmp_path, [(step, {"loss": float(step)}) for step in range(1, 8)])
    again = CSVMetrics(tmp_path)
    again.resume(4)
    again.log_metrics({"loss": 50.0}, 5)
    again.log_metrics({"grad": 1.0}, 5)
    again.finalize("success")
    table = MetricsTable.read(path).numbers()
    assert table["step"] == [1, 2, 3, 4, 5]
    assert table["loss"] == [1, 2, 3, 4, 50]


def test_resume_of_the_same_logger_and_without_a_file(tmp_path, path):
    logger = CSVMetrics(tmp_path)
    logger.resume(3)
    assert not path.exists()
    logger.log_metrics({"loss": 1.0}, 1)
    logger.log_metrics({"loss": 2.0}, 2)
    logger.resume(1)
    logger.log_metrics({"loss": 3.0}, 2)
    logger.finalize("success")
    assert MetricsTable.read(path).numbers()["loss"] == [1.0, 3.0]


def test_any_cut_of_the_file_is_repaired_at_open(tmp_path, path, caplog):
    logged(tmp_path, [(step, {"loss": step / 3, "lr": 0.1}) for step in range(1, 12)])
    whole, sums = path.read_bytes(), path.with_name("metrics.csv.sum").read_bytes()
    rows = list(MetricsTable.read(path).rows.values())
    for cut in random.Random(0).sample(range(len(whole)), 60):
        path.write_bytes(whole[:cut])
        path.with_name("metrics.csv.sum").write_bytes(sums)
        with caplog.at_level(logging.ERROR):
            logged(tmp_path, [(100, {"loss": 1.0})])
        table = MetricsTable.read(path)
        assert table.problems == []
        left = list(table.rows.values())
        assert left[:-1] == rows[: len(left) - 1]
        assert len(left) - 1 >= whole[:cut].count(b"\n") - 1
        (tmp_path / "metrics-damaged.csv").unlink(missing_ok=True)


def test_a_torn_line_is_reported_with_the_file(tmp_path, path, caplog):
    path.write_text("step,epoch,loss\n1,0,2.5\n2,0,2.")
    with caplog.at_level(logging.WARNING, logger="aptlab"):
        logged(tmp_path, [(2, {"loss": 2.0})])
    assert "metrics.csv repaired: step 2, the last line, was cut off and is left out\n" in caplog.text
    assert path.read_text() == "step,epoch,loss\n1,0,2.5\n2,,2.0\n"


def test_a_file_that_is_no_table_is_kept_aside(tmp_path, path):
    path.write_text("my notes\n")
    logged(tmp_path, [(1, {"loss": 1.0})])
    assert (tmp_path / "metrics-damaged.csv").read_text() == "my notes\n"
    assert MetricsTable.read(path).numbers()["loss"] == [1.0]


def test_rows_reach_the_file_within_a_second(tmp_path, path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    logger = CSVMetrics(tmp_path)
    logger.log_metrics({"loss": 1.0}, 1)
    logger.log_metrics({"loss": 2.0}, 2)
    assert len(MetricsTable.read(path).rows) == 1
    clock[0] = 1.0
    logger.log_metrics({"loss": 3.0}, 3)
    assert len(MetricsTable.read(path).rows) == 3


def test_a_full_disk_costs_one_warning_and_no_row(tmp_path, path, caplog):
    class Full:
        def __init__(self, file):
            self.file = file

        def __getattr__(self, name):
            return getattr(self.file, name)

        def write(self, data):
            self.file.write(data[:3])
            raise OSError(28, "No space left on device")

    logger = logged(tmp_path, [(1, {"loss": 1.0})])
    logger._file = Full(logger._file)
    for step in range(2, 6):
        logger.log_metrics({"loss": float(step)}, step)
        logger.log_metrics({"new": 1.0}, step)
        logger.save()
    assert caplog.text.count("cannot write") == 1
    assert "No space left on device; metrics wait in memory" in caplog.text
    logger._file = logger._file.file
    logger.finalize("success")
    assert MetricsTable.read(path).numbers()["loss"] == [1, 2, 3, 4, 5]


def test_a_disk_that_is_full_before_the_first_row_keeps_the_rows_in_memory(tmp_path, path, monkeypatch, caplog):
    def refuse(table, lines):
        raise OSError(28, "No space left on device")

    (logger,) = Tracking(mode="none").make(tmp_path)
    assert isinstance(logger, CSVMetrics)
    assert path.is_file()
    with monkeypatch.context() as full:
        full.setattr("aptlab.loggers.metrics.append_sums", refuse)
        full.setattr(MetricsTable, "write", refuse)
        for step in (1, 2):
            logger.log_metrics({"epoch": 0.5}, step)
            logger.save()
    assert "No space left on device; metrics wait in memory" in caplog.text
    logger.close()
    assert MetricsTable.read(path).numbers()["epoch"] == [0.5, 0.5]


def test_a_value_that_is_no_number_is_left_out_with_a_warning(tmp_path, path, caplog):
    logged(tmp_path, [(1, {"loss": 1.0, "text": "abc", "vector": torch.ones(2)})])
    assert path.read_text() == "step,epoch,loss\n1,,1.0\n"
    assert "text is no single number (str); not logged" in caplog.text
    assert "vector is no single number (Tensor); not logged" in caplog.text


def test_a_file_that_cannot_be_read_is_an_error(tmp_path, path):
    path.mkdir()
    with pytest.raises(AptlabError, match=r"cannot read .*metrics\.csv: Is a directory; choose another run_dir"):
        CSVMetrics(tmp_path).log_metrics({"loss": 1.0}, 1)
