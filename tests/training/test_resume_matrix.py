"""Every key of what decides a training is changed on resume, one by one: it is used, or refused with the way out.

The keys are walked from the composed configuration, of every option of their groups, so a new one is in here by being
there; a value that the walk cannot think of goes into OTHERS.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from aptlab.config import Config, build, compose, list_parameter_values, read_signature
from aptlab.config.destinations import says_where
from aptlab.config.search_path import read_option_index
from aptlab.errors import CheckpointError, ConfigError, DataError
from aptlab.optim.rates import StepRates
from aptlab.training.plan import FREE, decide_resume, flatten_config, has_key_prefix, plan_training
from aptlab.training.trainer_keys import WORKS
from tests.commands.small_run import texts
from tests.commands.test_plan import checkpoint

GROUPS = ("optim", "schedule", "validate", "trainer", "callbacks", "data", "tokenizer")
NEEDS = {"callbacks=mixed": ["callbacks.mixed.original_len=16"], "data=mixed": ["data.rows.original_len=16"]}
NEEDS |= {"tokenizer=file": ["tokenizer.path=one.json"], "data=pairs": ["source=copy"]}
# Values for keys whose value says nothing about others: null, a text, a list.
OTHERS: dict[str, Any] = {
    "data.verify": "full", "callbacks.watchdog.silent": 20,
    "data.cache": "elsewhere", "tokenizer.path": "two.json", "tokenizer.eos": "b", "trainer.gradient_clip_val": 0.5,
    "trainer.max_time": "'00:01:00:00'", "trainer.limit_val_batches": 1, "trainer.profiler": "simple",
    "trainer.gradient_clip_algorithm": "value", "trainer.val_check_interval": 7, "trainer.num_sanity_val_steps": 1,
    "trainer.max_epochs": 3, "trainer.min_steps": 2, "callbacks.checkpoints.monitor": "val/ppl",
    "callbacks.smooth_memory.every": 3, "callbacks.smooth_memory.plain": True, "validate.every": 7,
    "callbacks.tasks.every": 7, "callbacks.adagc.relative": 1.2, "callbacks.agc.skip": ["*head.*", "*norm*"],
    "callbacks.low_rank.skip": ["*head.*"], "callbacks.qk_clip.tau": 50.0,
    "data.val_batches": 3, "data.target_context": 9,
}  # fmt: skip
FLAGS = ("deterministic", "benchmark", "inference_mode", "detect_anomaly", "sync_batchnorm")
OTHERS |= {f"trainer.{flag}": flag != "inference_mode" for flag in FLAGS}  # which alone is on where nobody sets it
INSTEAD = ("trainer.val_check_interval",)  # in place of validate.every
LATER = ("data.context",)  # refused when the data are open, as the walk over the data shows
COPIES = ("data.source", "data.tokenizer", "data.scenario")  # slots, set at their own root key


@functools.cache
def composed(group: str, option: str) -> Config:
    word = f"{group}={option}"
    return compose("train", ["size=debug", "context=32", word, *NEEDS.get(word, [])])


def list_keys(group: str, option: str) -> list[str]:
    """Leaf keys of an option's node, and what its classes take beside them."""
    node = composed(group, option).resolved()[group] or {}
    keys = [key for key in flatten_config({group: node}) if not key.endswith(("_target_", "_partial_"))]
    if group == "trainer":
        keys += [f"trainer.{name}" for name in WORKS]
    if group == "callbacks":
        keys += [f"callbacks.{name}.{key}" for name, part in node.items() for key in list_parameters(part)]
    return [key for key in dict.fromkeys(keys) if not key.startswith(COPIES)]


def list_parameters(node: Mapping[str, Any]) -> list[str]:
    signature = read_signature(node["_target_"])
    return list(signature.parameters) if signature else []


def walk(group: str) -> Iterator[tuple[str, str]]:
    """Every key of every option of a group, once: what several options have is changed in the first of them."""
    seen = set(UNSET)
    for option in sorted(read_option_index().groups[group], key=lambda name: (name != "default", name)):
        new = [key for key in list_keys(group, option) if key not in seen]
        seen.update(new)
        yield from ((option, key) for key in new)


UNSET = ("callbacks.same_config.config_hash",)  # a run fills it in itself
UNSET += ("callbacks.replay.rule", "callbacks.curriculum.rule")  # set at their own root keys
TASKS = ("tasks", "image_tasks", "labelled_texts")  # data of several tasks, whose rows tests/continual holds


def find_value(config: Config, key: str) -> Any:
    """Another value of a key than the configuration has, that its annotation allows."""
    if key in OTHERS:
        return OTHERS[key]
    found: Any = config.resolved()
    *parents, last = key.split(".")
    for part in parents:
        found = found[part]
    signature, value = read_signature(found["_target_"]), found.get(last)
    parameter = signature.parameters.get(last) if signature else None
    if isinstance(value, bool):
        return not value
    words = [
        word for word in (list_parameter_values(parameter) if parameter else []) if word not in (str(value), "null")
    ]
    if isinstance(value, str) and words:
        return words[0]
    if isinstance(value, int):
        return 2 * value + 1
    if isinstance(value, float):
        return value / 2 or 0.25
    raise AssertionError(f"{key}={value!r}: put another value into OTHERS")


def read_key(config: Config, key: str) -> Any:
    found: Any = config.resolved()
    for part in key.split("."):
        found = found[part]
    return found


def base_of(group: str, option: str) -> list[str]:
    return ["size=debug", "context=32", f"{group}={option}", *NEEDS.get(f"{group}={option}", [])]


@pytest.mark.slow
@pytest.mark.parametrize("group", GROUPS)
def test_every_changed_key_is_in_the_plan_and_named_or_refused_with_the_way_out(group, monkeypatch, tmp_path):
    """Without a word, a key that changes what the state means asks for one; with it, the new value is the run's."""
    count = 0
    for option, key in walk(group):
        home = tmp_path / key
        home.mkdir()
        monkeypatch.chdir(home)
        assert_used_or_refused(group, option, key)
        count += 1
    assert count


def assert_used_or_refused(group: str, option: str, key: str) -> None:
    value = find_value(composed(group, option), key)
    checkpoint(*base_of(group, option))
    listed = key in flatten_config(composed(group, option).resolved())
    asked = [f"{'' if listed else '+'}{key}={value}", *(["validate.every=null"] if key in INSTEAD else [])]
    made = plan_training(["ckpt=last", "load=resume", *asked])
    expected = read_key(made.config, key)
    assert expected == (value.strip("'") if isinstance(value, str) else value), key
    assert made.resume
    if key in LATER:
        return
    assert any(line.strip().startswith(f"{key}: ") for line in made.notes), key
    assert key in made.changed
    if not has_key_prefix(key, FREE) and not says_where(key):
        with pytest.raises(CheckpointError) as caught:
            decide_resume("auto", {key: (None, value)})
        assert f"{key} " in str(caught.value)
        assert "say load=resume to keep all state and go on with the new settings, or load=weights" in str(caught.value)
    assert_built(group, option, key, made.config.resolved()[group], expected)


def assert_built(group: str, option: str, key: str, node: Mapping[str, Any], expected: Any) -> None:
    """The object that is built has the value, whatever the state of an older one says."""
    if group == "callbacks":
        name, parameter = key.split(".")[1:]
        callback = build(node[name])
        callback.load_state_dict(build(composed(group, option).resolved()[group][name]).state_dict())
        made = getattr(callback, parameter)
        assert (list(made) if isinstance(made, tuple) else made) == expected, key
    elif group in ("optim", "schedule", "validate"):
        assert getattr(build(node), key.partition(".")[2]) == expected, key
    elif group == "trainer":
        assert key.partition(".")[2] in WORKS, "tests/training/test_trainer_works.py shows that it does what it says"


@pytest.mark.parametrize("option", sorted(read_option_index().groups["optim"]))
def test_every_setting_of_an_optimizer_is_the_new_one_on_an_old_state(option):
    if option == "adamw8bit":
        pytest.importorskip("bitsandbytes", reason="bitsandbytes has no build for this platform")
    config = composed("optim", option)
    node = config.resolved()["optim"]
    for key in list_keys("optim", option):
        changed = {**node, key.partition(".")[2]: find_value(config, key)}
        old, fresh, resumed = (step_once(build(part)) for part in (node, changed, changed))
        assert describe_groups(old[0]) != describe_groups(fresh[0]), key
        resumed[0].load_state_dict(old[0].state_dict())
        resumed[1].load_state_dict(old[1].state_dict())
        assert describe_groups(resumed[0]) == describe_groups(fresh[0]), key


def step_once(rule: Any) -> tuple[torch.optim.Optimizer, StepRates]:
    torch.manual_seed(0)
    net = nn.Linear(8, 8)
    optimizer = rule.make(net)
    rates = StepRates(optimizer, lambda step: 1 / (1 + step))
    for weight in net.parameters():
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    rates.step()
    return optimizer, rates


def describe_groups(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    return [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]


@pytest.mark.parametrize("option", sorted(read_option_index().groups["schedule"]))
def test_every_number_of_a_schedule_changes_the_rate_of_a_later_step(option):
    config = composed("schedule", option)
    node = config.resolved()["schedule"]
    for key in list_keys("schedule", option):
        other = build({**node, key.partition(".")[2]: find_value(config, key)})
        assert [other.factor(n, 100) for n in range(3, 100)] != [build(node).factor(n, 100) for n in range(3, 100)], key


@pytest.mark.slow
@pytest.mark.parametrize("option", sorted(read_option_index().groups["data"].keys() - TASKS))
def test_every_key_of_the_data_changes_the_rows_or_is_refused(option):
    text = ["source.count=200"] if option == "pairs" else [f"data.files={texts()}"]
    base = [*base_of("data", option), *text, "data.split.val_fraction=0.3", "data.batch=4"]
    base += ["data.val_batches=2", "seed=3"]
    config = compose("train", base)
    old = build(config.resolved()["data"])
    state = old.state_dict() | {"micro_batches": 5}
    for key in list_keys("data", option):
        value = find_value(config, key)
        plain = compose("train", [*base, f"{key}={value}"]).resolved()["data"]
        try:
            new = build(plain)
            new.check_state(state)
            new.load_state_dict(state)
        except CheckpointError as error:
            told = str(error)
            assert "with load=weights" in told, key
            continue
        except (ConfigError, DataError):
            continue  # the value does not go with this little text, which is told
        if key == "data.cache" and option != "pairs":  # the tokenizer of bytes is not trained, and pairs are not kept
            assert Path(str(value)).is_dir()
        elif key in ("data.cache", "data.split.inside", "data.verify"):  # whole documents give the share here
            assert new.fingerprint == old.fingerprint
        else:
            assert describe_rows(new) != describe_rows(old), key


def describe_rows(data: Any) -> list[bytes]:
    """A training batch and all validation batches, as bytes."""
    batches = [data.train_dataloader().batch_at(5), *data.val_dataloader()]
    return [np.ascontiguousarray(batch[name]).tobytes() for batch in batches for name in sorted(batch)]


@pytest.mark.parametrize(
    "key", ["tokenizer=bpe tokenizer.vocab=259", "tokenizer=bpe tokenizer.min_frequency=9", "tokenizer=bytes"]
)
def test_another_tokenizer_is_other_data(key):
    base = ["size=debug", "context=32", f"data.files={texts()}", "data.split.val_fraction=0.3", "data.batch=2"]
    old = build(compose("train", [*base, "tokenizer=bpe", "tokenizer.vocab=264"]).resolved()["data"])
    new = build(compose("train", [*base, *key.split()]).resolved()["data"])
    with pytest.raises(
        CheckpointError, match=r"trained on other data: fingerprint .* start a new run from its weights"
    ):
        new.check_state(old.state_dict())


def test_a_new_option_of_the_trainer_brings_its_own_numbers():
    """The steps that an older command gave belong to the option it gave them for."""
    checkpoint("size=debug", "context=32", "trainer=debug", "trainer.max_steps=20")
    made = plan_training(["ckpt=last", "load=resume", "trainer=default"])
    assert made.config.cfg.trainer.max_steps == 400
    assert made.config.cfg.validate.every == 100
    again = plan_training(["ckpt=last", "load=resume", "trainer=debug"])
    assert again.config.cfg.trainer.max_steps == 20
