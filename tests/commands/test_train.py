"""The train command from its words to its folder."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from aptlab.checkpoint import is_valid, load_checkpoint
from aptlab.cli import main
from aptlab.commands.train import run
from aptlab.config import compose, expand_shortcuts
from aptlab.errors import CheckpointError, ConfigError
from aptlab.training.plan import flatten_config
from tests.commands.small_run import newest, texts, train, words

FILES = {"config.yaml", "overrides.yaml", "choices.yaml", "environment.json", "log.txt", "metrics.csv", "result.json"}
FILES |= {"metrics.csv.sum"}
SITES = ("attention", "ffn")
FILES |= {"figure.png", "evals", "tokenizer.json", "checkpoints"}


def table(folder: Path) -> list[dict[str, str]]:
    with open(folder / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def folders() -> list[Path]:
    return [path for path in Path("outputs").rglob("*") if path.is_dir()]


def test_a_run_leaves_every_file(capsys):
    overrides = ("trainer.max_steps=4", "validate.every=2", "callbacks.checkpoints.every=3")
    made = train(*overrides)
    folder, result = made.path, made.result
    assert {path.name for path in folder.iterdir() if not path.name.startswith(".")} == FILES
    assert result is not None
    assert yaml.safe_load((folder / "config.yaml").read_text())["vocab"] == 257
    assert made.overrides == expand_shortcuts(words(*overrides))
    assert (made.choices["size"], made.choices["source"]) == ("debug", "text")
    assert json.loads((folder / "environment.json").read_text())["seed"] == 0
    assert (folder / "figure.png").read_bytes().startswith(b"\x89PNG")
    ends = {path.relative_to(folder).as_posix() for path in (folder / "evals").rglob("*") if path.is_file()}
    at = "evals/step-00000004"
    assert ends == {
        f"{at}/lengths/eval.json",
        f"{at}/lengths/figure.png",
        f"{at}/sample/eval.json",
        f"{at}/sample/sample.txt",
    }
    assert (folder / at / "sample/sample.txt").read_text().strip() in result.evals["sample"]["samples"][0]["text"]
    assert json.loads((folder / "tokenizer.json").read_text())["model"]["type"] == "BPE"
    names = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert names == [f"step-0000000{step}.{kind}" for step in (3, 4) for kind in ("ckpt", "json")]
    assert all(is_valid(path) for path in (folder / "checkpoints").glob("*.ckpt"))
    shown = capsys.readouterr().out
    for line in (
        f"run      {folder.resolve()}",
        "28,864 parameters",
        "step 4/4",
        "trained to step 4",
        "vs 1x",
        "sample",
    ):
        assert line in shown


def test_the_result_holds_what_was_measured():
    made = train()
    plain = json.loads((made.path / "result.json").read_text())
    assert (plain["status"], plain["steps"], plain["tokens"]) == ("finished", 2, 2 * 4 * 32)
    assert [(row["multiple"], row["length"]) for row in plain["lengths"]] == [(1, 32), (2, 64), (4, 128), (8, 256)]
    assert len({row["tokens"] for row in plain["lengths"]}) == 1
    for row in plain["lengths"]:
        assert math.isclose(row["ppl"], math.exp(row["loss"]), rel_tol=1e-6)
        assert math.isclose(row["bpb"], row["loss"] / math.log(2), rel_tol=0.05)  # one token is one byte, but for <eos>
    loss = plain["metrics"]["val/loss"]
    assert 4 < loss < 6.5
    assert math.isclose(plain["metrics"]["val/ppl"], math.exp(loss), rel_tol=1e-5)
    rows = table(made.path)
    assert [row["step"] for row in rows] == ["1", "2"]
    assert math.isclose(float(rows[-1]["train/loss"]), plain["metrics"]["train/loss"], rel_tol=1e-5)
    assert plain["config_hash"] == compose("train", made.overrides).hash()
    assert load_checkpoint(made.path / "checkpoints/step-00000002.ckpt")["aptlab"]["config"]["vocab"] == 257


@pytest.mark.slow
def test_two_words_change_two_parts():
    both = ((), ("rope=yarn", "smooth=memory"))
    plain, changed = (yaml.safe_load((train("evals=none", *parts).path / "config.yaml").read_text()) for parts in both)
    before, after = flatten_config(plain), flatten_config(changed)
    different = {key for key in {**before, **after} if before.get(key) != after.get(key)}
    sites = [f"{root}sites.{site}.smooth" for root in ("block.", "model.block.", "task.net.block.") for site in SITES]
    places = ("rope", "smooth", "model.positions.rope", "task.net.positions.rope", *sites)
    assert different
    assert {key for key in different if not key.startswith(tuple(f"{place}." for place in places))} == set()
    assert {key.split(".")[0] for key in different} == {"rope", "smooth", "block", "model", "task"}


def test_the_same_words_give_the_same_numbers():
    first, second = train("smooth=memory"), train("smooth=memory")
    assert first.path != second.path
    assert [row["train/loss"] for row in table(first.path)] == [row["train/loss"] for row in table(second.path)]
    assert first.result.lengths == second.result.lengths


def test_a_resumed_run_goes_on_in_its_folder(capsys):
    whole = train("trainer.max_steps=4", "schedule.warmup=0", "evals=none")
    part = train("trainer.max_steps=2", "schedule.warmup=0", "evals=none")
    assert run([f"ckpt={part.path}", "trainer.max_steps=4"]) == 0
    shown = capsys.readouterr().out
    assert f"continuing from {part.path}/checkpoints/step-00000002.ckpt" in shown
    assert "  trainer.max_steps: 2 -> 4" in shown
    again = newest()
    assert again.path == part.path
    assert [row["step"] for row in table(part.path)] == ["1", "2", "3", "4"]
    assert again.result.steps == 4
    assert again.result.tokens == whole.result.tokens
    assert len(list(Path("outputs").rglob("result.json"))) == 2
    assert "APTLAB_CKPT" not in os.environ
    assert "APTLAB_RUN_DIR" not in os.environ


def test_another_rule_starts_a_new_run_from_the_weights(capsys):
    first = train("evals=none")
    assert run([f"ckpt={first.path}", "rope=yarn", "optim.lr=1e-9"]) == 0
    shown = capsys.readouterr().out
    assert f"new run from the weights of {first.path}/checkpoints/step-00000002.ckpt" in shown
    assert "  rope._target_: aptlab.nn.positions.rope.Standard -> aptlab.nn.positions.rope.YaRN" in shown
    second = newest()
    assert second.path != first.path
    assert [row["step"] for row in table(second.path)] == ["1", "2"]
    before, after = (load_checkpoint(found.path / "checkpoints/step-00000002.ckpt") for found in (first, second))
    for name, weight in before["state_dict"].items():
        assert weight.allclose(after["state_dict"][name], atol=1e-6), name


@pytest.mark.slow
def test_a_run_remembers_whose_weights_it_began_with():
    first = train("evals=none")
    assert first.result.origin == {}
    assert run([f"ckpt={first.path}", "load=weights"]) == 0
    second = newest()
    origin = {"checkpoint": f"{first.path}/checkpoints/step-00000002.ckpt", "step": 2}
    assert second.result.origin == origin
    assert run([f"ckpt={second.path}", "trainer.max_steps=3"]) == 0
    assert (newest().result.steps, newest().result.origin) == (3, origin)


def test_weights_keep_the_tokenizer_that_they_know():
    first = train("tokenizer=bpe", "tokenizer.vocab=300", "evals=none")
    other = texts(Path("other.jsonl"), words=80)
    Path(other).write_text(Path(other).read_text().replace("word", "mot"))
    assert run([f"ckpt={first.path}", "load=weights", f"data.files={other}"]) == 0
    second = newest()
    assert second.path != first.path
    assert (second.path / "tokenizer.json").read_text() == (first.path / "tokenizer.json").read_text()


def test_weights_that_do_not_fit(capsys):
    first = train("evals=none")
    made = folders()
    assert main(["train", f"ckpt={first.path}", "size.dim=64"]) == 2
    assert re.search(r"weights of \S+ do not fit this model: net.* \(257, 32\) -> \(257, 64\)", capsys.readouterr().err)
    with pytest.raises(CheckpointError, match="do not fit this model"):
        run([f"ckpt={first.path}", "vocab=300"])
    assert folders() == made


def test_other_text_cannot_be_resumed_and_the_run_stays_whole():
    first = train("evals=none")
    other = texts(Path("other.jsonl"), words=80)
    with pytest.raises(CheckpointError, match="the checkpoint was trained on other data: fingerprint"):
        run([f"ckpt={first.path}", "load=resume", f"data.files={other}", "trainer.max_steps=4"])
    assert newest().finished


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["rope.factor=8"], "rope.factor: "),
        (["data.files=none*.txt"], "data.files=none*.txt matches no file"),
        (["context=50000"], "bytes of text, too few for one row of context=50000 tokens; give more text"),
        (["data.batch=4000"], "data.batch=4000 on 1 device needs 4000 rows, but an epoch has "),
        (["data.split.val_fraction=0.0001"], " is longer than the val text, which has "),
        (
            ["data.split.val_fraction=0.0001", "data.split.inside=false"],
            "data.split.val_fraction=0.0001 leaves the val side empty: ",
        ),
        (["vocab=100"], "vocab=100 is smaller than the tokenizer's 257; use vocab=null or at least 257"),
        (["trainer.val_check_interval=0.5"], "trainer.val_check_interval: 0.5 and validate.every=5 are both given"),
        (["+trainer.max_epochs=1", "trainer.accumulate_grad_batches=9999"], "trainer.max_epochs=1 is not one step"),
        (["trainer.max_steps=-1"], "trainer.max_steps=-1: the schedule needs an end; use 1 or more, or set trainer"),
        (["size.heads=3"], "size.dim=32 is not divisible by heads=3"),
        (["device=cuda", "device.devices=99"], "wants 99 CUDA devices and"),
    ],
)
def test_a_mistake_is_one_message_and_leaves_no_folder(overrides, message, capsys):
    assert main(["train", *words(*overrides)]) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert "Traceback" not in printed
    assert not Path("outputs").exists()


@pytest.mark.slow
def test_warnings_before_the_folder_are_in_its_log():
    made = train("context=1024", "data.batch=1")
    assert "length 8x is left out: the validation text has" in (made.path / "log.txt").read_text()
    assert [row["multiple"] for row in made.result.lengths] == [1, 2, 4]


PARTS = [
    ("data.rows.document_mask=true",),
    ("tokenizer=bpe", "tokenizer.vocab=300"),
    ("model.tied=false", "attention.qk_norm=true"),
    ("ffn=gelu", "norm=layer", "size.kv_heads=1"),
    ("optim=adamw8bit",),
    ("schedule=wsd", "precision=bf16-mixed"),
    ("smooth=left_spin", "rope=llama3", "trainer.accumulate_grad_batches=2"),
]


@pytest.mark.slow
@pytest.mark.parametrize("overrides", PARTS, ids=" ".join)
def test_every_kind_of_part_trains(overrides):
    made = train("evals=none", *overrides)
    assert made.result.steps == 2
    assert made.result.skipped_steps == 0
    assert math.isfinite(made.result.metrics["val/loss"])
    chosen = dict(word.split("=") for word in overrides if word.partition("=")[0] in made.choices)
    assert chosen.items() <= made.choices.items()


def test_one_epoch_is_each_row_once():
    made = train("+trainer.max_epochs=1", "trainer.max_steps=-1", "context=128", "data.batch=8", "evals=none")
    data = made.result.data
    batches = (data["train_tokens"] - 1) // 128 // 8
    assert made.result.steps == batches
    assert made.result.tokens == batches * 8 * 128
    assert float(table(made.path)[-1]["epoch"]) == 1.0


def test_a_vocabulary_may_be_padded():
    made = train("vocab=320")
    assert load_checkpoint(made.path / "checkpoints/step-00000002.ckpt")["aptlab"]["vocab"] == 320
    with pytest.raises(ConfigError, match="vocab=256 is smaller than the tokenizer's 257"):
        run(words("vocab=256"))


@pytest.mark.slow
def test_two_ranks_are_one_run(tmp_path):
    command = [sys.executable, "-m", "aptlab", "train", *words("device=ddp", "device.accelerator=cpu")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "APTLAB_TEST_MARK": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    assert len(list(Path("outputs").rglob("config.yaml"))) == 1
    made = newest()
    assert made.result.steps == 2
    assert made.result.tokens == 2 * 2 * 4 * 32
    assert done.stdout.count("trained to step 2") == 1
    assert len(list(Path("outputs").rglob("result.json"))) == 1
    assert [row["step"] for row in table(made.path)] == ["1", "2"]
    assert left_over(f"APTLAB_TEST_MARK={tmp_path}") == []


def left_over(mark: str) -> list[str]:
    """Processes that still carry an environment variable of ours."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (place / "environ").read_bytes().split(b"\0"):
                found.append((place / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


def test_the_final_weights_are_validated_when_the_last_interval_is_not_full():
    rows = table(train("trainer.max_steps=5", "validate.every=2", "evals=none").path)
    assert [row["step"] for row in rows if row["val/loss"]] == ["2", "4", "5"]


@pytest.mark.parametrize("embed", ["learned", "sinusoidal"])
def test_added_positions_are_converted_to_rotation(embed, capsys):
    """`aptlab train ckpt=… embed=none rope=standard` keeps the weights and folds the mean of the positions."""
    old = train(f"embed={embed}", "rope=none", "evals=none")
    new = train(f"ckpt={old.path}", "embed=none", "rope=standard", "evals=none")
    assert "the positions added to the embedding are gone, their mean is folded in" in capsys.readouterr().err
    assert new.path != old.path
    assert new.result is not None
