"""Widths of a nested model in the commands: trained, resumed, loaded, measured, drafted with and exported."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

import aptlab
from aptlab.checkpoint import load_checkpoint
from aptlab.cli import main
from aptlab.errors import ConfigError
from aptlab.runs.record import read_record
from tests.commands.small_run import words

NESTED = ("ffn=matformer", "objective=elastic_sample", "objective.distillation=0.3", "callbacks.checkpoints.every=2")
QUICK = ("evals=none", "validate.every=4", "callbacks.checkpoints.keep=10")
RUN = "outputs/train/2026-01-02/030405-abcd"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a nested run of four steps and its text."""
    folder = tmp_path_factory.mktemp("nested")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["train", *words(*NESTED, *QUICK, "trainer.max_steps=4", f"run_dir={RUN}")]) == 0
    return folder


@pytest.fixture(autouse=True)
def _inside(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)


def weights(run: str | Path, step: int) -> dict[str, torch.Tensor]:
    return load_checkpoint(Path(run, "checkpoints", f"step-{step:08d}.ckpt"))["state_dict"]


@pytest.mark.slow
def test_a_resumed_run_draws_the_same_widths():
    again = Path("outputs/train/2026-01-02/again")
    shutil.copytree(RUN, again)
    for later in (again / "checkpoints").glob("step-00000004*"):
        later.unlink()
    assert main(["train", f"ckpt={again}/checkpoints/step-00000002.ckpt"]) == 0
    for name, value in weights(RUN, 4).items():
        assert torch.equal(weights(again, 4)[name], value), name
    assert not torch.equal(weights(RUN, 2)["net.norm.weight"], weights(RUN, 4)["net.norm.weight"])


def test_a_loaded_width_is_the_slice_and_every_width_was_validated():
    whole, half = aptlab.load(RUN), aptlab.load(RUN, width=[1, 0.25])
    tokens = torch.arange(60).view(2, 30)
    assert torch.equal(half.net(tokens).logits, whole.net(tokens, width=[1, 0.25]).logits)
    assert (half.net.shape.hidden, half.config["size"]["hidden"], half.width) == ((64, 16), [64, 16], [1, 0.25])
    assert half.describe_width() == ["width    [1,0.25]: [64, 16] hidden units"]
    assert "nested" not in half.config["ffn"]
    metrics = read_record(Path(RUN, "result.json"), dict)[0]["metrics"]
    assert {"val/loss", "val/loss@0.5", "val/loss@0.25", "val/loss@0.125"} <= metrics.keys()
    with pytest.raises(ConfigError, match=r"^width=0\.3: block 0 has the widths 1, 0\.5, 0\.25, 0\.125; use one of"):
        aptlab.load(RUN, width=0.3)


def test_a_width_is_measured_like_any_model(capsys):
    assert main(["eval", f"ckpt={RUN}", "device=cpu", "multiples=[1]", "tokens=256", "width=0.5", "out=half"]) == 0
    assert "width    0.5: 32 hidden units" in capsys.readouterr().out
    row = json.loads(Path("half/eval.json").read_text())
    assert row["width"] == 0.5
    assert main(["eval", f"ckpt={RUN}", "device=cpu", "eval=widths", "tokens=256", "out=all"]) == 0
    rows = json.loads(Path("all/eval.json").read_text())["widths"]
    assert rows[1]["loss"] == pytest.approx(row["lengths"][0]["loss"], rel=1e-5)
    assert main(["eval", f"ckpt={RUN}", "device=cpu", "rope=yarn", "tokens=256", "multiples=[1]", "width=0.25"]) == 0


def test_show_tells_the_widths_of_a_checkpoint(capsys):
    assert main(["show", f"ckpt={RUN}"]) == 0
    assert "widths   1, 0.5 (-50.0%), 0.25 (-75.0%), 0.125 (-87.5%), in brackets" in capsys.readouterr().out


def test_a_drafted_greedy_text_is_the_plain_one_and_the_share_is_told(capsys):
    ask = ["generate", f"ckpt={RUN}", "device=cpu", "prompt=word", "temperature=0", "max_new_tokens=12"]
    assert main([*ask, "width=0.5"]) == 0
    plain = capsys.readouterr().out
    assert main([*ask, "width=0.5", "draft=0.125", "draft_tokens=3"]) == 0
    drafted = capsys.readouterr()
    assert drafted.out == plain
    assert "draft 0.125: " in drafted.err
    assert "drafted tokens accepted" in drafted.err
    model = aptlab.load(RUN)
    assert model.generate("word", temperature=0, max_new_tokens=12, width=0.5, draft=0.25)[0].text in plain
    assert main([*ask, "draft=1"]) == 2
    assert (
        "draft=1 is no smaller than the width 1 that it would draft for; use a smaller one" in capsys.readouterr().err
    )
    with pytest.raises(ConfigError, match=r"^this model is the width 0\.5 of another one and has no width itself"):
        aptlab.load(RUN, width=0.5).generate("word", draft=0.25)


def test_a_width_is_exported_as_a_dense_model_that_can_be_imported(capsys):
    assert main(["export", f"ckpt={RUN}", "width=0.5", "out=hf"]) == 0
    assert json.loads(Path("hf/config.json").read_text())["intermediate_size"] == 32
    assert main(["import", "path=hf", "out=dense"]) == 0
    tokens = torch.arange(60).view(2, 30)
    found = aptlab.load("dense").net(tokens).logits
    assert torch.allclose(found, aptlab.load(RUN).net(tokens, width=0.5).logits, atol=1e-5)
    assert main(["export", f"ckpt={RUN}", "width=[1,0.5]", "out=mixed"]) == 2
    assert "size.hidden=[64, 32] cannot be exported to format=hf: every layout here" in capsys.readouterr().err


def test_a_dense_model_becomes_a_nested_one_with_its_units_sorted(capsys):
    dense = "outputs/train/2026-01-02/dense"
    assert main(["train", *words(*QUICK, f"run_dir={dense}")]) == 0
    ask = ["train", f"ckpt={dense}", "ffn=matformer", "objective=elastic", "trainer.max_steps=1", "optim.lr=1e-9"]
    assert main([*ask, "load=importance", "run_dir=outputs/sorted"]) == 0
    assert "hidden units sorted by their activations on" in capsys.readouterr().err
    old, new = aptlab.load(dense), aptlab.load("outputs/sorted")
    tokens = torch.arange(60).view(2, 30)
    assert torch.allclose(new.net(tokens).logits, old.net(tokens).logits, atol=1e-4)
    assert not torch.equal(new.net.blocks[0].ffn.down.weight, old.net.blocks[0].ffn.down.weight)
    assert main(["train", f"ckpt={dense}", "load=importance", "optim.lr=1e-9", "run_dir=outputs/none"]) == 2
    assert "load=importance sorts hidden units for the widths of a nested network" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words_", "message"),
    [
        (["objective=elastic"], "Elastic trains several widths of one network, and this network has one; choose ffn="),
        (["ffn=matformer", "ffn.nested.granularities=[1,0.3]"], "width 0.3 of a hidden size 64 is 19.2 units"),
        (["ffn=matformer", "objective=elastic_sample", "objective.strategy.probabilities=[1,0]"], "one for each"),
    ],
)
def test_what_does_not_go_together_is_refused_before_a_run_has_a_folder(words_, message, capsys):
    assert main(["train", *words(*QUICK, *words_, "run_dir=outputs/refused")]) == 2
    assert message in capsys.readouterr().err
    assert not Path("outputs/refused").exists()
