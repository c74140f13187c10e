"""Every option of every group composes, checks and builds; every rotary rule trains with every smoothing."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch

from aptlab.config import Config, build, check, compose
from aptlab.config.search_path import read_option_index
from aptlab.config.slots import MACHINE
from aptlab.device import Device
from aptlab.errors import ConfigError
from aptlab.objectives import compute_token_nll

GROUPS = {group: sorted(options) for group, options in read_option_index().groups.items() if group != "recipe"}
SWEEP = ("sweep", "launcher")
PRIMARY = {"sweep": "sweep", "launcher": "sweep", "eval": "eval"}  # command of a group that train does not have
OPTIONS = [(group, option) for group, options in GROUPS.items() for option in options if group not in SWEEP]
SWEEP_OPTIONS = [(group, option) for group in SWEEP for option in GROUPS[group]]
WHOLE = ("model", "task")  # built from the other groups, which do not all go together
NEEDS = {
    "source=text": ["source.files=some.txt"],
    "source=pairs": ["source.files=some.jsonl"],
    "source=hub": ["source.repo=owner/name"],
    "tokenizer=file": ["tokenizer.path=some.json"],
    "eval=harness": ["eval.tasks=[x]"],
    "model=dytox": ["task=dytox"],
    "data=pairs": ["source=copy"],
    "model=dytox_text": ["task=dytox_text"],
    "model=dytox_seed": ["task=dytox_seed"],
    "callbacks=mixed": ["callbacks.mixed.original_len=16"],
}
TRAINED_BY = {
    "apt": "seq2seq",
    "dytox": "dytox",
    "dytox_seed": "dytox_seed",
    "dytox_text": "dytox_text",
}  # the task of a model that not every task trains
ONCE = ("deepnorm", "depth_decay", "layerscale", "left_spin_layerscale", "residual_scale", "rezero", "softclip")
# Every rotary rule with every smoothing; those of ONCE read what the others read, and take turns.
TRAINED = [
    (rope, smooth)
    for number, rope in enumerate(GROUPS["rope"])
    for smooth in GROUPS["smooth"]
    if smooth not in ONCE or smooth == ONCE[number % len(ONCE)]
]
FACTORIES: dict[str, dict[str, Any]] = {
    "smooth": {"layer": 0, "site": "ffn"},
    "norm": {},
}


@functools.cache
def composed(group: str, option: str) -> Config:
    word = f"{group}={option}"
    extra = [] if group in ("size", *PRIMARY) else ["size=debug"]
    return compose(PRIMARY.get(group, "train"), [word, *extra, *NEEDS.get(word, [])])


@functools.cache
def resolved(group: str, option: str) -> dict[str, Any]:
    return composed(group, option).resolved()


@functools.cache
def composed_walk(number: int) -> Config:
    """The option at this place of every group of a run, all at once, and found right by the check."""
    chosen = {group: options[number % len(options)] for group, options in GROUPS.items() if group not in PRIMARY}
    models = sorted(TRAINED_BY) if chosen["task"] in TRAINED_BY.values() else GROUPS["model"]
    chosen["model"] = models[number % len(models)]
    chosen["task"] = TRAINED_BY.get(chosen["model"], chosen["task"])
    if chosen["data"] == "pairs":  # not of any source
        chosen["data"] = "packed"
    words = [f"{group}={option}" for group, option in chosen.items()]
    config = compose("train", [*words, *(extra for word in words for extra in NEEDS.get(word, []))])
    assert {group: config.choices[group] for group in chosen} == chosen
    check(config)
    return config


@pytest.mark.parametrize(("group", "option"), OPTIONS, ids=["=".join(pair) for pair in OPTIONS])
def test_an_option_composes_checks_and_builds(group, option):
    if group in ("eval", *WHOLE) or f"{group}={option}" == "data=pairs":
        check(config := composed(group, option))
    else:
        config = composed_walk(GROUPS[group].index(option))
    assert config.choices[group] == option
    node = config.resolved()[group]
    if group == "paths":
        assert node == {"root": "outputs"}
        return
    if group in ("callbacks", "evals"):
        assert len([build(inner, f"{group}.{name}") for name, inner in node.items()]) == len(node)
        return
    if group in WHOLE:
        net = node if group == "model" else node["net"]
        for part in (net, net.get("inputs") or {}):
            part |= {"vocab": 257} if "vocab" in part else {}
    made = build(config.cfg[group]) if group in MACHINE else build(node, group)
    assert callable(made) if node.get("_partial_") else type(made).__name__ == node["_target_"].rpartition(".")[2]
    if group in FACTORIES:
        assert isinstance(made(32, **FACTORIES[group]), torch.nn.Module)


@pytest.mark.parametrize(("group", "option"), SWEEP_OPTIONS, ids=["=".join(pair) for pair in SWEEP_OPTIONS])
def test_a_sweep_option_builds(group, option):
    config = composed(group, option)
    check(config)
    assert type(build(config.cfg[group])).__module__.startswith("aptlab.sweep")


@pytest.mark.parametrize("option", GROUPS["device"])
def test_a_device_answers_or_says_what_is_missing(option):
    device: Device = build(composed("device", option).cfg.device)
    if option == "cuda" and not torch.cuda.is_available():
        with pytest.raises(ConfigError, match=r"^devices=1 wants 1 CUDA device and 0 are here; use device=cpu"):
            device.trainer_args()
    else:
        assert device.trainer_args()["accelerator"] in ("cpu", "cuda")


@pytest.mark.parametrize(("rope", "smooth"), TRAINED, ids=["-".join(pair) for pair in TRAINED])
def test_every_rule_trains_with_every_smoothing(rope, smooth):
    plain = resolved("rope", rope)
    model = {**plain["model"], "block": resolved("smooth", smooth)["model"]["block"]}  # a rule may bring its block
    torch.manual_seed(0)
    net = build({**model, "vocab": 61})
    optimizer = build({**plain["optim"], "lr": 1e-2}).make(net)
    row = torch.randint(61, (4, 33))
    losses = []
    for _ in range(3):
        loss = compute_token_nll(net(row[:, :-1]).logits, row[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > losses[1] > losses[2]
    assert all(weight.isfinite().all() for weight in net.parameters())


def test_the_smallest_sizes_fit_their_names():
    for option, low, high in (("debug", 2e4, 4e4), ("tiny", 7e5, 9e5), ("10m", 9e6, 11e6)):
        node = {**composed("size", option).resolved()["model"], "vocab": 257}
        with torch.device("meta"):
            parameters = sum(weight.numel() for weight in build(node).parameters())
        assert low < parameters < high, option


def test_no_option_of_a_group_is_left_out_here():
    conf = Path(__file__).parents[1] / "conf"
    found = {path.name for path in conf.iterdir() if path.is_dir() and path.name != "recipe"}
    assert found == set(GROUPS)
