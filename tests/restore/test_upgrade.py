"""Checkpoints that earlier code wrote: read, measured, continued, with the numbers that their own code gave."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from aptlab.checkpoint import find_checkpoint, read_manifest
from aptlab.cli import main
from aptlab.config import check, compose, read_signature
from aptlab.config.renamed import MODULES, TARGETS
from aptlab.restore.load import load_network
from aptlab.restore.upgrade import (
    ADDED,
    ROOTS,
    rename_parts,
    rename_target,
    upgrade_checkpoint,
    upgrade_choices,
    upgrade_config,
    upgrade_manifest,
    upgrade_overrides,
)
from aptlab.training.plan import compare_configs

DATA = Path(__file__).with_name("data")
NAMES = sorted(path.name for path in DATA.iterdir())
OLD_SCALE = {"_target_": "aptlab.nn.smooth.ScaledResidual", "_partial_": True, "factor": 0.22}
SHORT = ("trainer.max_steps=2", "callbacks.checkpoints.every=2", "data.val_batches=1")
PASSKEY = ("eval.samples=1", "eval.depths=[0.5]", "eval.lengths=[256]", "device=cpu")


@pytest.fixture
def old_run(tmp_path):
    """A run folder of earlier code, copied, so that commands may write there."""
    shutil.copytree(DATA / "yarn_memory", tmp_path / "old")
    return tmp_path / "old"


def walk(value):
    if isinstance(value, dict):
        yield from ((key, item) for key, item in value.items())
        for item in value.values():
            yield from walk(item)
    elif isinstance(value, list):
        for item in value:
            yield from walk(item)


@pytest.mark.parametrize("name", NAMES)
def test_an_old_network_gives_the_numbers_that_its_own_code_gave(name):
    net = load_network(DATA / name).net
    torch.manual_seed(0)
    with torch.inference_mode():
        logits = net(torch.randint(0, 256, (2, 96))).logits[:, [0, 31, 95]]
    # Bit-equal on the machine that wrote them; another CPU may add in another order.
    torch.testing.assert_close(logits, torch.from_numpy(np.load(DATA / name / "logits.npy")), rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", NAMES)
def test_an_old_configuration_passes_the_check_of_today(name):
    manifest = upgrade_manifest(read_manifest(find_checkpoint(DATA / name)))
    overrides = [text for text in manifest.overrides if not text.startswith("run_dir=")]
    config = compose("train", overrides)
    check(config)
    for group in ("rope", "bias", "embed", "smooth", "attention", "ffn", "norm", "size", "model"):
        now, then = config.resolved()[group], manifest.config[group]
        assert {**now, "vocab": None} == {**then, "vocab": None}, group


@pytest.mark.parametrize("name", NAMES)
def test_every_target_of_an_old_configuration_is_a_class_of_today(name):
    config = upgrade_config(read_manifest(find_checkpoint(DATA / name)).config)
    targets = {value for key, value in walk(config) if key == "_target_"}
    assert len(targets) > 20
    for target in targets:
        read_signature(target)  # ConfigError for a name that is not there


@pytest.mark.parametrize("target", [*TARGETS, *(f"{module}." for module in MODULES)])
def test_every_row_leads_to_a_name_that_is_there(target):
    names = {
        "aptlab.nn.rope.": "YaRN",
        "aptlab.nn.bias.": "ALiBi",
        "aptlab.nn.embed.": "NoEmbed",
        "aptlab.nn.linear.": "LinearAttention",
        "aptlab.data.mixed.": "Mix",
        "aptlab.data.split.": "Split",
        "aptlab.commands.sweep.": "Grid",
        "aptlab.commands.sweep.launchers.": "Launcher",
    }
    assert read_signature(rename_target(target + names.get(target, ""))) is not None


def test_overrides_of_a_sliding_window_are_those_of_today():
    manifest = upgrade_manifest(read_manifest(find_checkpoint(DATA / "irope_sliding")))
    assert "attention.window.size=16" in manifest.overrides
    assert not any("reach" in text for text in manifest.overrides)


def test_an_option_with_another_name_is_chosen_by_that():
    manifest = upgrade_manifest(read_manifest(find_checkpoint(DATA / "irope_sliding")))
    assert manifest.choices["logger"] == "csv"
    assert "logger=csv" in manifest.overrides
    assert "logger=none" not in manifest.overrides


def test_a_run_of_a_scaled_residual_is_one_of_its_factor():
    today = compose("train", ["size=debug", "smooth=granite"]).resolved()
    sites = {key: {**site, "smooth": OLD_SCALE} for key, site in today["block"]["sites"].items()}
    old = {**today, "smooth": OLD_SCALE, "block": {**today["block"], "sites": sites}}
    assert compare_configs(upgrade_config(old), today) == {}
    assert upgrade_overrides(["smooth=scaled", "smooth.factor=0.3"], today) == ["smooth=granite", "smooth.factor=0.3"]
    assert upgrade_choices({"smooth": "scaled"}) == {"smooth": "granite"}


def test_a_configuration_of_today_is_left_alone():
    config = compose("train", ["rope=irope", "attention=sliding"]).resolved()
    assert upgrade_config(config) is config
    assert upgrade_checkpoint({"state_dict": {}}) == {"state_dict": {}}


def test_a_parameter_that_a_class_has_got_says_in_old_configurations_what_the_class_did():
    words = ["size=debug", "attention=sliding", "ffn=gelu", "block=parallel", "rope=irope"]
    today = compose("train", words).resolved()

    def strip(node):
        if not isinstance(node, dict):
            return node
        added = ADDED.get(node.get("_target_"), {})
        return {key: strip(value) for key, value in node.items() if key not in added}

    old = strip(today)
    assert "logits" not in old["attention"]
    assert not {"head", "embedding"} & set(old["model"])
    assert upgrade_config(old) == today
    assert compare_configs(upgrade_config(old), today) == {}
    changed = compose("train", [*words, "model.head.scale=2.0", "attention.logits.softcap=5.0"]).resolved()
    found = compare_configs(upgrade_config(old), changed)
    assert found == {"model.head.scale": (1.0, 2.0), "attention.logits.softcap": (None, 5.0)}
    for target, added in ADDED.items():
        assert set(added) <= set(read_signature(target).parameters)


@pytest.mark.parametrize("name", ["gemma2", "olmo3", "mistral", "ministral3", "neox"])
def test_an_option_file_that_lacks_a_new_parameter_is_no_change_of_its_own_run(name):
    today = compose("train", ["size=debug", f"model={name}"]).resolved()
    assert compare_configs(upgrade_config(today), today) == {}


def test_a_root_node_that_train_has_got_says_in_old_runs_what_they_did():
    today = compose("train", []).stored()
    old = {key: node for key, node in today.items() if key not in ROOTS}
    assert len(old) < len(today)
    assert upgrade_config(old) == today
    assert upgrade_config({"model": {}}) == {"model": {}}  # no run


def test_a_key_is_renamed_only_where_the_class_takes_the_new_name(monkeypatch):
    monkeypatch.setattr("aptlab.restore.upgrade.KEYS", {"steps": "warmup", "beta": "none"})
    old = {"_target_": "aptlab.optim.schedule.Cosine", "steps": 3, "beta": 1, "inner": [{"steps": 2}]}
    assert rename_parts(old) == {**{k: v for k, v in old.items() if k != "steps"}, "warmup": 3}


def test_overrides_follow_the_configuration(monkeypatch):
    monkeypatch.setattr("aptlab.restore.upgrade.KEYS", {"reach": "span"})
    monkeypatch.setattr("aptlab.restore.upgrade.MOVES", {"trainer.often": "validate.every"})
    config = {"attention": {"span": {"window": 16}}, "other": {"reach": 1}, "validate": {"every": 10}, "trainer": {}}
    old = ["attention.reach.window=16", "+other.reach=1", "trainer.often=10", "~attention.reach", "rope=yarn"]
    assert upgrade_overrides(old, config) == [
        "attention.span.window=16",
        "+other.reach=1",
        "validate.every=10",
        "~attention.span",
        "rope=yarn",
    ]
    assert upgrade_overrides(["rope.inner._target_=aptlab.nn.rope.YaRN"], config) == [
        "rope.inner._target_=aptlab.nn.positions.rope.YaRN"
    ]


def test_an_old_checkpoint_can_be_measured(old_run):
    assert main(["eval", f"ckpt={old_run}", "eval=passkey", *PASSKEY, "out=measured"]) == 0
    assert json.loads(Path("measured/eval.json").read_text())["step"] == 20


def test_an_old_checkpoint_can_write(old_run, capsys):
    assert main(["generate", f"ckpt={old_run}", "prompt=a", "max_new_tokens=3", "device=cpu"]) == 0
    assert capsys.readouterr().out.startswith("a")


@pytest.mark.slow
def test_a_new_run_begins_with_old_weights(old_run):
    assert main(["train", f"ckpt={old_run}", "load=weights", *SHORT, "run_dir=new"]) == 0
    assert json.loads(Path("new/result.json").read_text())["steps"] == 2


def test_the_door_of_restore_opens_for_every_name():
    import aptlab.restore

    assert set(aptlab.restore._MODULES) == set(aptlab.restore.__all__)
    assert all(callable(getattr(aptlab.restore, name)) for name in aptlab.restore.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'gone'"):
        aptlab.restore.gone  # noqa: B018
