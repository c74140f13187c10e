"""`aptlab eval`, in this process, on a real checkpoint of a tiny random model."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from aptlab.commands import eval as command
from aptlab.commands.eval import read_eval_request
from aptlab.errors import AptlabError
from aptlab.evals import evaluate_windows
from aptlab.evals.runner import evaluate_checkpoint, make_data
from aptlab.nn.positions.rope import YaRN
from aptlab.restore.load import load_network
from aptlab.restore.other_rule import replace_network_rope
from tests.commands.trained import CONTEXT, make_run, write_texts


@pytest.fixture(scope="module")
def ckpt(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("eval")
    return make_run(folder / "outputs", texts=write_texts(folder / "texts.jsonl"))


@pytest.fixture
def run(ckpt, tmp_path):
    def call(*args: str) -> dict:
        assert command.run([f"ckpt={ckpt}", "device=cpu", "tokens=512", f"out={tmp_path / 'out'}", *args]) == 0
        return json.loads((tmp_path / "out" / "eval.json").read_text())

    return call


def test_the_table_and_the_file_hold_the_same_numbers_as_a_direct_measurement(run, ckpt, capsys):
    found = run()
    out = capsys.readouterr().out
    loaded = load_network(ckpt)
    windows = make_data(loaded, None).windows(CONTEXT, multiples=(1, 2, 4, 8), tokens=512)
    expected = evaluate_windows(loaded.net, windows)
    assert found["lengths"] == expected.rows
    assert found["positions"] == expected.positions
    assert found["step"] == 7
    assert f"loss by length (trained at {CONTEXT} tokens)" in out
    assert "parts    all as in the checkpoint" in out
    assert f"{expected.rows[0]['loss']:.4f}" in out


def test_where_the_data_go_needs_no_option_before_it(run, ckpt, capsys, tmp_path):
    before = run()
    capsys.readouterr()
    args = [f"ckpt={ckpt}", "device=cpu", "tokens=512", f"data.cache={tmp_path / 'mine'}", f"out={tmp_path / 'moved'}"]
    assert command.run(args) == 0
    after = json.loads((tmp_path / "moved" / "eval.json").read_text())
    assert after["lengths"] == before["lengths"]
    assert after["overrides"][-1] == f"data.cache={tmp_path / 'mine'}"
    assert list((tmp_path / "mine").iterdir())
    assert "parts    all as in the checkpoint" in capsys.readouterr().out
    assert command.resolve_config(args)["data"]["cache"] == str(tmp_path / "mine")


def test_a_rope_rule_replaces_the_trained_one_and_knows_the_trained_context(run, capsys):
    before = run()
    found = run("rope=yarn", "rope.factor=8")
    out = capsys.readouterr().out
    assert found["rope"]["original_len"] == CONTEXT
    assert f"rope     Standard -> YaRN(factor=8, original_len={CONTEXT}, fraction=1.0, beta_fast=32.0, " in out
    assert "base=" not in out  # the same in both
    assert [row["loss"] for row in found["lengths"]] != [row["loss"] for row in before["lengths"]]


def test_a_rule_on_old_weights_has_their_base_and_layout_unless_they_are_given(ckpt):
    """llama3's option has base 500,000 and irope's rotating layers base 500,000 and interleaved pairs."""
    stored = load_network(ckpt).config
    assert read_eval_request(["rope=llama3"]).filled(stored)["rope"]["base"] == 10_000.0
    assert read_eval_request(["rope=llama3", "rope.base=7"]).filled(stored)["rope"]["base"] == 7
    irope = read_eval_request(["rope=irope"]).filled(stored)["rope"]
    assert (irope["inner"]["base"], irope["inner"]["layout"]) == (10_000.0, "half")


def test_the_weights_stay_when_the_rule_changes(ckpt):
    loaded = load_network(ckpt)
    net = replace_network_rope(loaded, read_eval_request(["rope=yarn"]).filled(loaded.config)["rope"])
    assert net.rope == YaRN(original_len=CONTEXT)
    state = loaded.net.state_dict()
    assert all(value.equal(state[name]) for name, value in net.state_dict().items())


def test_the_trained_rule_asked_for_again_changes_nothing(run):
    assert run("rope=standard")["lengths"] == run()["lengths"]


def test_another_text_is_measured_and_named(run, tmp_path, capsys):
    texts = write_texts(tmp_path / "other.jsonl", salt=5)
    found = run(
        "source=text", f"source.files='{texts}'", "data=packed", "data.split.val_fraction=0.9", "multiples=[1,2]"
    )
    assert "another text than in training" in capsys.readouterr().out
    assert [row["multiple"] for row in found["lengths"]] == [1, 2]


def test_rows_alone_keep_the_text_and_files_alone_keep_the_rows(run, tmp_path, capsys):
    same = run("data=packed", "data.split.val_fraction=0.5", "multiples=[1]")
    assert "another text" not in capsys.readouterr().out
    assert same["lengths"] == run("multiples=[1]")["lengths"]
    texts = write_texts(tmp_path / "other.jsonl", salt=5)
    other = run(f"data.files='{texts}'", "multiples=[1]")
    assert "another text than in training" in capsys.readouterr().out
    assert other["lengths"] != same["lengths"]


def test_multiples_that_do_not_fit_are_left_out_with_a_reason(run, capsys):
    found = run("multiples=[1,4,4096]")
    assert [row["multiple"] for row in found["lengths"]] == [1, 4]
    assert "length 4096x is left out: the validation text has" in capsys.readouterr().err


def test_results_go_beside_the_checkpoint_unless_told_otherwise(ckpt, capsys):
    assert command.run([f"ckpt={ckpt}", "device=cpu", "tokens=128"]) == 0
    folders = list((ckpt.parent.parent / "evals").iterdir())
    assert len(folders) == 1
    assert {path.name for path in folders[0].iterdir()} == {"eval.json", "figure.png"}
    assert str(folders[0] / "eval.json") in capsys.readouterr().out


def test_bf16_true_computes_in_bfloat16(run):
    exact, rounded = run("multiples=[1]"), run("multiples=[1]", "precision=bf16-true")
    assert rounded["precision"] == "bf16-true"
    assert rounded["lengths"][0]["loss"] != exact["lengths"][0]["loss"]
    assert rounded["lengths"][0]["loss"] == pytest.approx(exact["lengths"][0]["loss"], rel=0.02)


def test_a_model_in_memory_is_measured_as_it_is_and_stays_its_owners(ckpt, tmp_path):
    loaded = load_network(ckpt)
    with torch.no_grad():
        for weight in loaded.net.parameters():
            weight.zero_()
    out = tmp_path / "out"
    request = read_eval_request([f"ckpt={ckpt}", "tokens=512", "precision=bf16-true", "multiples=[1]", f"out={out}"])
    assert evaluate_checkpoint(request.config, request.filled, loaded) == out
    found = json.loads((out / "eval.json").read_text())
    assert found["lengths"][0]["loss"] == pytest.approx(math.log(loaded.net.vocab), rel=1e-2)  # every token alike
    assert {weight.dtype for weight in loaded.net.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["multiples=[0,1]"], r"multiples: must be a finite number >= 1, got 0"),
        (["multiples=[]"], r"multiples=\[\] measures nothing; choose lengths such as"),
        (["tokens=0"], r"tokens: must be a finite number >= 1"),
        (["tokens=all"], r"tokens: expects int, got 'all'"),
        (["context=512"], r"context: is that of the checkpoint; choose lengths with multiples"),
        (["tokenizer=bpe"], r"tokenizer: is that of the checkpoint; the weights know no other"),
        (["rope.factor=4"], r"rope\.factor: choose the option first, as in rope=yarn rope\.factor="),
        (["rope=yran"], r"rope=yran: no such option; did you mean yarn"),
        (["rope=yarn", "rope.factor=-1"], r"rope\.factor"),
        (["precision=fp8"], r"precision"),
        (["source=text"], r"data\.files: a value is needed"),
    ],
)
def test_what_is_wrong_is_said_before_torch_is_needed(args, message):
    with pytest.raises(AptlabError, match=message):
        read_eval_request(args)


def test_a_place_that_cannot_be_written_is_said_before_measuring(ckpt, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(AptlabError, match=r"cannot make the folder .*; choose another with out="):
        command.run([f"ckpt={ckpt}", "device=cpu", f"out={tmp_path / 'file' / 'out'}"])


def test_reading_a_request_loads_no_torch():
    code = "import sys; from aptlab.commands.eval import read_eval_request; read_eval_request(['rope=yarn']); "
    code += "assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
