"""An eval of someone else's package is measured, printed, drawn and continued like ours."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aptlab.cli import main
from aptlab.commands.eval import read_eval_request, run
from aptlab.config import build
from aptlab.errors import AptlabError, ConfigError
from aptlab.testing import EvalContract
from tests.commands.trained import make_run, write_texts
from tests.extension.test_extension import install

NODE = {"_target_": "aptlab_half.evals.Copying", "lengths": [8, 16], "samples": 3, "seed": 0}


@pytest.fixture(scope="module")
def ckpt(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("copying")
    return make_run(folder / "outputs", texts=write_texts(folder / "texts.jsonl"))


@pytest.fixture
def installed(tmp_path, monkeypatch) -> Path:
    site = install(tmp_path / "site")
    monkeypatch.syspath_prepend(str(site))
    return site


@pytest.fixture
def measure(installed, ckpt, tmp_path):
    def call(*args: str, out: str = "out") -> dict:
        assert run(["eval=copying", f"ckpt={ckpt}", "device=cpu", f"out={tmp_path / out}", *args]) == 0
        return json.loads((tmp_path / out / "eval.json").read_text())

    return call


class TestCopying(EvalContract):
    """The contract test that a third party ships."""

    @pytest.fixture(autouse=True)
    def _evaluation(self, installed):
        self.evaluation = build(NODE)


def test_it_is_listed(installed, capsys):
    assert main(["ls", "eval"]) == 0
    assert "copying" in capsys.readouterr().out


def test_its_rows_table_and_figure_are_there(measure, tmp_path, capsys):
    found = measure()
    out = capsys.readouterr().out
    assert [row["length"] for row in found["lengths"]] == [8, 16]
    assert found["eval"] == NODE
    assert found["data"] is None
    assert f"copying   16 tokens: loss {found['lengths'][1]['loss']:.4f}" in out
    assert f"figure   {tmp_path / 'out' / 'copying.png'}" in out
    assert (tmp_path / "out" / "copying.png").stat().st_size > 0
    assert "parts    all as in the checkpoint" in out


def test_it_goes_on_where_it_was_broken_off(measure, tmp_path):
    whole = measure()
    journal = tmp_path / "out" / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:4]) + lines[4][:-5])
    assert measure()["lengths"] == whole["lengths"]
    assert journal.read_bytes() == b"".join(lines)


def test_another_request_in_its_folder_is_refused(measure):
    measure()
    with pytest.raises(AptlabError, match=r"another request; what differs:\n  eval\.samples: 3 -> 2\n"):
        measure("eval.samples=2")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("eval.lengths=[]", r"eval\.lengths=\[\] copies nothing; choose lengths such as"),
        ("eval.samples=0", r"eval\.samples: must be a finite number >= 1, got 0"),
        ("eval.sample=2", r"eval\.sample: aptlab_half\.evals\.Copying has no such parameter; did you mean samples"),
    ],
)
def test_its_errors_are_told_before_anything_is_opened(installed, change, message):
    with pytest.raises(ConfigError, match=message):
        read_eval_request(["eval=copying", change])


def test_a_class_that_is_no_eval_is_refused(ckpt, tmp_path):
    Path("conf/eval").mkdir(parents=True)
    Path("conf/eval/rule.yaml").write_text("# A rope rule is no eval.\n_target_: aptlab.nn.positions.rope.Standard\n")
    message = r"eval: aptlab\.nn\.positions\.rope\.Standard is no whole aptlab\.evals\.Eval, .*write measure"
    with pytest.raises(ConfigError, match=message):
        run(["eval=rule", f"ckpt={ckpt}", "device=cpu", f"out={tmp_path / 'out'}"])
