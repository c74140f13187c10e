"""What a train request means, decided without torch from the manifest of a checkpoint."""

from __future__ import annotations

import functools
import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from aptlab.checkpoint.manifest import Manifest, write_manifest
from aptlab.config import Config, compose, redact_overrides, redact_value
from aptlab.errors import CheckpointError, ConfigError
from aptlab.training.plan import compare_configs, decide_resume, flatten_config, plan_training

BASE = ("size=debug", "context=64", "rope=yarn", "rope.factor=8")
RUN = Path("outputs/train/2026-01-02/030405-abcd")


@functools.cache
def composed(*overrides: str) -> Config:
    return compose("train", list(overrides))


def checkpoint(*overrides: str, run: Path = RUN, step: int = 7, run_dir: str | None = None) -> Path:
    """A file that no one can load, with the manifest of `aptlab train` (of `aptlab import` with run_dir="")."""
    config = composed(*overrides)
    path = run / "checkpoints" / f"step-{step:08d}.ckpt"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"weights")
    manifest = Manifest(
        sha256=hashlib.sha256(b"weights").hexdigest(),
        bytes=7,
        step=step,
        overrides=redact_overrides(overrides),
        choices=config.choices,
        config=redact_value({**config.resolved(), "vocab": config.cfg.vocab or 257}),
        run_dir=str(run) if run_dir is None else run_dir,
    )
    write_manifest(path, manifest)
    return path


def test_a_plan_without_a_checkpoint_is_a_new_run():
    made = plan_training(["size=debug"])
    assert (made.ckpt, made.resume, made.notes) == (None, False, ())
    assert made.config.overrides == ["size=debug"]


@pytest.mark.parametrize("ckpt", ["last", str(RUN), str(RUN / "checkpoints"), "outputs"])
def test_nothing_changed_resumes_in_the_same_folder(ckpt):
    path = checkpoint(*BASE)
    made = plan_training([f"ckpt={ckpt}"])
    assert made.resume
    assert made.ckpt is not None
    assert made.ckpt.samefile(path)
    assert Path(made.config.cfg.run_dir).samefile(RUN)
    assert made.config.cfg.rope.factor == 8
    assert made.notes == (f"continuing from {made.ckpt}",)


def test_the_same_command_with_ckpt_resumes():
    checkpoint(*BASE, "~callbacks.guard", "+trainer.limit_val_batches=3")
    made = plan_training([*BASE, "~callbacks.guard", "+trainer.limit_val_batches=3", "ckpt=last"])
    assert made.resume
    assert "guard" not in made.config.cfg.callbacks


@pytest.mark.parametrize(
    ("override", "note"),
    [
        ("trainer.max_steps=900", "  trainer.max_steps: 400 -> 900"),
        ("logger=csv", "  logger.mode: auto -> none"),
        ("device=cpu", "  device._target_: aptlab.device.Auto -> aptlab.device.Cpu"),
        ("callbacks.checkpoints.every=5", "  callbacks.checkpoints.every: 100 -> 5"),
        ("compile=true", "  compile: False -> True"),
    ],
)
def test_changes_that_leave_the_training_alone_resume_and_are_noted(override, note):
    checkpoint(*BASE)
    made = plan_training(["ckpt=last", override])
    assert made.resume
    assert note in made.notes


@pytest.mark.parametrize(
    ("override", "note"),
    [
        ("rope.factor=2", "  rope.factor: 8 -> 2"),
        ("rope=standard", "  rope._target_: aptlab.nn.positions.rope.YaRN -> aptlab.nn.positions.rope.Standard"),
        ("context=128", "  context: 64 -> 128"),
        ("size.depth=3", "  size.depth: 2 -> 3"),
        ("smooth=memory", "  smooth._target_: aptlab.nn.smooth.Plain -> aptlab.nn.smooth.MemorySmooth"),
        ("model.tied=false", "  model.tied: True -> False"),
        ("vocab=512", "  vocab: 257 -> 512"),
    ],
)
def test_another_model_is_a_new_run_from_the_weights(override, note):
    path = checkpoint(*BASE)
    made = plan_training(["ckpt=last", override])
    assert not made.resume
    assert made.notes[0] == f"new run from the weights of {path}"
    assert note in made.notes
    assert made.config.cfg.run_dir is None
    assert made.config.cfg.size.dim == 32


@pytest.mark.parametrize(
    ("override", "change"),
    [
        ("optim.lr=1", "optim.lr 0.003 -> 1"),
        ("seed=5", "seed 0 -> 5"),
        ("data.batch=2", "data.batch 16 -> 2"),
        ("precision=bf16-mixed", "precision auto -> bf16-mixed"),
        ("schedule=wsd", "schedule._target_"),
        ("+trainer.accumulate_grad_batches=2", "trainer.accumulate_grad_batches 1 -> 2"),
    ],
)
def test_other_training_needs_a_word(override, change):
    checkpoint(*BASE)
    with pytest.raises(CheckpointError, match="the checkpoint was trained with other settings: ") as error:
        plan_training(["ckpt=last", override])
    for part in (change, "say load=resume to keep all state", "or load=weights for a new run"):
        assert part in str(error.value)
    assert plan_training(["ckpt=last", "load=resume", override]).resume
    fresh = plan_training(["ckpt=last", "load=weights", override])
    assert not fresh.resume
    assert fresh.config.cfg.run_dir is None


def test_a_seed_is_named_once():
    checkpoint(*BASE)
    with pytest.raises(CheckpointError, match=r"other settings: seed 0 -> 5; say"):
        plan_training(["ckpt=last", "seed=5"])


def test_resume_cannot_change_the_model():
    checkpoint(*BASE)
    with pytest.raises(
        CheckpointError, match=r"load=resume cannot change the model \(rope.factor 8 -> 2\); use load=w"
    ):
        plan_training(["ckpt=last", "load=resume", "rope.factor=2"])


def test_load_weights_without_a_change_is_a_new_run():
    checkpoint(*BASE)
    made = plan_training(["ckpt=last", "load=weights"])
    assert not made.resume
    assert made.notes[0].startswith("new run from the weights of")


def test_a_checkpoint_without_training_gives_weights_alone():
    checkpoint(*BASE, step=0, run_dir="")
    assert not plan_training(["ckpt=last", "optim.lr=1"]).resume
    with pytest.raises(CheckpointError, match="this checkpoint holds weights alone; use load=weights"):
        plan_training(["ckpt=last", "load=resume"])


def test_a_run_stopped_before_its_first_step_goes_on_in_its_folder():
    checkpoint(*BASE, step=0)
    made = plan_training(["ckpt=last"])
    assert made.resume
    assert Path(made.config.cfg.run_dir).samefile(RUN)


def test_load_needs_a_checkpoint():
    with pytest.raises(ConfigError, match=r"load=weights needs a checkpoint; add ckpt=last or ckpt=<path>"):
        plan_training(["size=debug", "load=weights"])
    with pytest.raises(ConfigError, match=r"load=resume needs a checkpoint"):
        plan_training(["size=debug", "load=resume", "ckpt=null"])


def test_an_unknown_load_is_named():
    with pytest.raises(ConfigError, match=r"load: no such value .weight.; did you mean weights\?"):
        plan_training(["load=weight"])


def test_a_missing_checkpoint_is_named():
    with pytest.raises(
        CheckpointError, match=r"outputs: no such file or folder, so ckpt=last finds no run; name a run"
    ):
        plan_training(["ckpt=last"])


def test_a_new_run_from_a_sweep_job_goes_its_own_way():
    run = Path("outputs/big/sweeps/1234abcd/000-seed=0")
    checkpoint(*BASE, "job=big", f"run_dir='{run}'", run=run)
    fresh = plan_training([f"ckpt={run}", "load=weights"])
    assert (fresh.config.cfg.run_dir, fresh.config.cfg.job) == (None, "train")
    again = plan_training([f"ckpt={run}"])
    assert (Path(again.config.cfg.run_dir), again.config.cfg.job) == (run, "big")
    assert [arg for arg in again.config.overrides if arg.startswith("run_dir=")] == [f"run_dir='{run}'"]


def test_a_folder_with_odd_characters_is_resumed():
    run = Path("outputs/it's, a [test]=1")
    checkpoint(*BASE, run=run)
    assert Path(plan_training([f"ckpt='{run.parent!s}'"]).config.cfg.run_dir) == run


def test_run_dir_of_the_command_line_wins():
    checkpoint(*BASE)
    assert plan_training(["ckpt=last", "run_dir=elsewhere"]).config.cfg.run_dir == "elsewhere"


def test_a_new_option_replaces_the_values_of_the_old_one():
    Path("a.txt").write_text("text")
    checkpoint(*BASE, "data.files=a.txt", "source.on_bad=skip", "data.batch=2")
    made = plan_training(["ckpt=last", "rope=standard", "source=stdlib", "data=mixed"])
    assert set(made.config.cfg.rope) == {"_target_", "base", "layout"}
    assert made.config.cfg.data.batch == 16
    assert set(made.config.cfg.source) == {"_target_", "parts"}
    assert "rope.factor=8" not in made.config.overrides
    kept = plan_training(["ckpt=last", "rope=yarn"])
    assert kept.resume
    assert kept.config.cfg.rope.factor == 8


def test_hidden_values_are_left_out_and_asked_for():
    secret = "https://user:hunter2hunter2@wandb.example"
    path = checkpoint(*BASE, f"logger.base_url='{secret}'")
    assert "hunter2" not in path.with_suffix(".json").read_text()
    made = plan_training(["ckpt=last"])
    assert made.config.cfg.logger.base_url is None
    assert "  logger.base_url was hidden in the checkpoint; give it again if it is needed" in made.notes
    again = plan_training(["ckpt=last", f"logger.base_url='{secret}'"])
    assert again.config.cfg.logger.base_url == secret
    assert "hunter2" not in "\n".join(again.notes)


def test_the_checkpoint_of_the_environment_comes_first(monkeypatch):
    path = checkpoint(*BASE)
    monkeypatch.setenv("APTLAB_CKPT", str(path))
    assert plan_training(["ckpt=nowhere"]).ckpt == path


def test_a_wrong_override_on_top_of_a_checkpoint():
    checkpoint(*BASE)
    with pytest.raises(ConfigError, match=r"rope\.factr"):
        plan_training(["ckpt=last", "rope.factr=2"])


def test_changes_are_leaves_and_leave_copies_out():
    old, new = (compose("train", args).resolved() for args in (["seed=1"], ["seed=2", "rope.base=5"]))
    assert compare_configs(old, new) == {"seed": (1, 2), "rope.base": (10000.0, 5)}
    assert compare_configs(old, {**old, "vocab": 300}) == {}
    smooth = compare_configs(old, compose("train", ["seed=1", "smooth=post_norm", "attention.qk_norm=true"]).resolved())
    assert {key.partition(".")[0] for key in smooth} == {"smooth", "attention"}
    assert compare_configs({**old, "vocab": 257}, {**old, "vocab": 300}) == {"vocab": (257, 300)}
    assert flatten_config({"a": {"b": [1], "c": {}}, "d": None}) == {"a.b": [1], "d": None}


def test_a_parameter_that_a_class_has_got_since_is_no_change_at_its_default():
    new = compose("train", ["data.files=a.txt"]).resolved()
    source = {key: value for key, value in new["source"].items() if key != "newlines"}
    assert compare_configs({**new, "source": source}, new) == {}
    other = {**new, "source": {**new["source"], "newlines": "unix"}}
    assert compare_configs({**new, "source": source}, other) == {"source.newlines": (None, "unix")}
    assert compare_configs({**new, "source": None}, new)["source.newlines"] == (None, "keep")


@pytest.mark.parametrize(
    ("load", "changed", "resume"),
    [("auto", [], True), ("auto", ["trainer.max_steps"], True), ("auto", ["rope.base", "seed"], False)],
)
def test_decide(load, changed, resume):
    assert decide_resume(load, dict.fromkeys(changed, (1, 2))) is resume


def test_planning_imports_no_torch():
    checkpoint(*BASE)
    code = "import sys; from aptlab.training.plan import plan_training; p = plan_training(['ckpt=last'])"
    code += "; print(p.resume, 'torch' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False", "False"]


def test_an_extension_has_the_base_and_layout_of_the_old_weights():
    checkpoint("size=debug", "context=64", "rope=standard", "rope.base=500", "rope.layout=interleaved")
    made = plan_training(["ckpt=last", "rope=yarn", "rope.factor=8"])
    assert (made.config.cfg.rope.base, made.config.cfg.rope.layout) == (500.0, "interleaved")
    assert made.config.cfg.model.positions.rope.base == 500.0
    assert "  rope.layout: interleaved, as the weights have it" in made.notes
    assert not any("rope.base" in line and "->" in line for line in made.notes)
    assert {"++rope.base=500", "++rope.layout=interleaved"} <= set(made.config.overrides)
    given = plan_training(["ckpt=last", "rope=yarn", "rope.base=9", "+rope.layout=half"])
    assert (given.config.cfg.rope.base, given.config.cfg.rope.layout) == (9, "half")
    assert "  rope.base: 500 -> 9" in given.notes


@pytest.mark.parametrize(
    ("base", "new", "original"),
    [
        (("rope=standard",), ("rope=yarn", "rope.factor=8", "context=512"), 64),
        (("rope=yarn", "rope.factor=8"), ("context=512",), 64),
        (("rope=yarn", "rope.original_len=32"), ("context=512",), 32),
        (("rope=standard",), ("rope=yarn", "rope.original_len=99", "context=512"), 99),
        (("rope=standard",), ("rope=yarn", "rope.factor=8"), 64),
    ],
)
def test_an_extension_counts_from_the_context_of_the_old_weights(base, new, original):
    """`original_len: ${context}` would mean the longer context of the new run."""
    checkpoint("size=debug", "context=64", *base)
    made = plan_training(["ckpt=last", *new])
    assert not made.resume
    assert made.config.cfg.rope.original_len == original
    assert made.config.cfg.model.positions.rope.original_len == original
