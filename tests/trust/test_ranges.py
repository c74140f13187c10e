"""Every number of every command is what it says, or is refused in one line with key, value and what is allowed."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from omegaconf import OmegaConf

from aptlab.cli import main
from aptlab.commands import eval as eval_command
from aptlab.commands import search as search_command
from aptlab.config import Config, check, compose
from aptlab.config.checking import find_config_problems
from aptlab.errors import ConfigError
from aptlab.limits import WIDEST, Limit, find_width_problem
from aptlab.sample import skeleton_rule
from aptlab.training.trainer_keys import RANGES, find_range_problems, find_trainer_problems

# Keys of the Trainer that a run may set and that no option names.
TRAINER = (
    "max_epochs",
    "min_steps",
    "max_time",
    "limit_val_batches",
    "num_sanity_val_steps",
    "gradient_clip_algorithm",
)
TRAINER += ("deterministic", "benchmark", "profiler", "val_check_interval")
EVALS = {"harness": ["eval.tasks=[x]"], "lengths": [], "needle": [], "passkey": [], "ruler": [], "sample": []}
EVALS |= {"sliding": []}
CASES = {
    "train": ("train", ["device=ddp", *(f"+trainer.{key}=null" for key in TRAINER)]),
    "train, other parts": ("train", ["schedule=wsd", "optim=adamw8bit", "device=cuda", "smooth=memory", "bias=t5"]),
    "train, mixed": ("train", ["data=mixed", "data.rows.original_len=16", "rope=longrope2", "ffn=gelu"]),
    "train, sliding": ("train", ["attention=sliding", "rope=yarn", "smooth=left_spin", "embed=sinusoidal"]),
    "search": ("search", ["target=1024"]),
    "sweep": ("sweep", []),
    "sweep, optuna": ("sweep", ["sweep=optuna", "launcher=submitit"]),
    "generate": ("generate", []),
    **{f"eval, {name}": ("eval", [f"eval={name}", *words]) for name, words in EVALS.items()},
}
BAD = {"-1": -1, "-0.5": -0.5, "0": 0, "nan": math.nan, "inf": math.inf, "1e300": 1e300, "2**70": 2**70}
BAD |= {"text": "text", "true": True, "null": None}
FROM_CKPT = {"eval": eval_command.STORED, "search": search_command.STORED}  # refused whatever they are

# What is legal of these values, beside what the option has: with a reason where that is not plain.
LEGAL = {
    **dict.fromkeys(("eval out", "generate out", "search out", "train run_dir", "train data.cache"), "text"),  # places
    **dict.fromkeys(("generate prompt", "generate prompts_file", "eval eval.include", "train ckpt"), "text"),
    **dict.fromkeys(("search name", "sweep sweep.name", "sweep launcher.partition"), "text"),
    **dict.fromkeys((f"train logger.{key}" for key in ("entity", "group", "project")), "text"),
    "eval eval.depths": "0",  # the needle stands first
    "eval eval.shots": "0",
    "eval eval.temperature": "0",  # greedy
    "eval eval.top_p": "0",  # the likeliest token alone
    "generate temperature": "0",
    "generate top_p": "0",
    "generate length_penalty": "0",  # of a beam search: the probability itself
    "generate min_p": "0",
    "generate skeleton.file": "text",
    "generate skeleton.momentum": "0",  # the new value alone
    **{f"generate {key}": "text" for key in skeleton_rule.RAW if "texts" in key},
    "search rope.fraction": "0",
    "search search.crossovers": "0",
    "search search.iterations": "0",  # the candidates of the start alone
    "search search.mutations": "0",
    "search search.probability": "0",
    "sweep launcher.grace": "0",  # killed at once
    "sweep launcher.memory_gb": "0",  # for Slurm: all of the node
    "train attention.dropout": "0",
    "train callbacks.checkpoints.keep_best": "0",
    "train callbacks.rounding.share": "0",  # never told
    "train data.rows.original_len": "null",
    "train data.rows.packed": "0",
    "train data.rows.short": "0",
    "train data.split.seed": "-1",
    "train data.val_batches": "null",  # all
    "train evals.sample.temperature": "0",
    "train evals.sample.top_p": "0",
    "train ffn.dropout": "0",
    "train objective.z_loss": "0",  # none
    "train optim.beta1": "0",  # no momentum
    "train optim.beta2": "0",
    "train optim.weight_decay": "0",
    "train rope.fraction": "0",
    "train schedule.decay": "0",
    "train schedule.final": "0",
    "train schedule.warmup": "0",
    "train smooth.alpha": "0",
    "train smooth.beta": "0",
    "train smooth.gate.bound": "null",
    "train smooth.sketch.match": "0",
    "train smooth.sketch.near": "0",
    "train smooth.sketch.threshold": "0",
    "train smooth.strength.w1": "0",
    "train smooth.strength.w2": "0",
    "train smooth.strength.decay": "0",  # the sizes of the last step alone
    "train smooth.tau": "0 null",  # null: half of the bound
    "train trainer.benchmark": "true",
    "train trainer.deterministic": "true",
    "train trainer.gradient_clip_val": "0 null",  # no clipping
    "train trainer.limit_val_batches": "0",  # no validation
    "train trainer.max_epochs": "-1",  # none are counted
    "train trainer.min_steps": "0",
    "train trainer.num_sanity_val_steps": "-1 0",  # all, none
    "train validate.every": "null",
}
# What the rules themselves refuse when the check builds them, and what depends on another key.
BY_RULE = {
    "search rope.factor": "null",
    "train data.split.val_fraction": "0",
    "train logger.base_url": "text",
    "train rope.factor": "null",
    "train trainer.max_steps": "0",
}


def walk_leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if not isinstance(value, dict | list):
        yield path, value
    for key, item in items:
        yield from walk_leaves(item, (*path, key))


def is_numeric(value: Any) -> bool:
    """A number, or null, which is what an option has where a number may stand."""
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


@cache
def composed(name: str) -> Config:
    command, words = CASES[name]
    config = compose(command, words)
    assert list(find_problems(config)) == []
    return config


def find_problems(config: Config) -> Iterator[str]:
    yield from find_config_problems(config)
    if config.command == "train":
        yield from find_trainer_problems(config.cfg)


def with_values(config: Config, values: dict[tuple[Any, ...], Any]) -> Config:
    raw = copy.deepcopy(OmegaConf.to_container(config.cfg, resolve=False))
    for path, value in values.items():
        node: Any = raw
        for part in path[:-1]:
            node = node[part]
        node[path[-1]] = value
    return dataclasses.replace(config, cfg=OmegaConf.create(raw))


def list_numbers(name: str) -> dict[tuple[Any, ...], Any]:
    config = composed(name)
    raw = OmegaConf.to_container(config.cfg, resolve=False)
    refused = FROM_CKPT.get(config.command, ())
    return {path: value for path, value in walk_leaves(raw) if is_numeric(value) and path[0] not in refused}


def write_key(path: tuple[Any, ...]) -> str:
    """As messages have it: an element of a list is told by the list."""
    return ".".join(str(part) for part in path if isinstance(part, str))


def find_accepted(name: str) -> dict[str, set[str]]:
    """For every number: which of the bad values pass. All keys get a value at the same time, and all are told."""
    accepted: dict[str, set[str]] = {}
    for word, value in BAD.items():
        changed = {path: old for path, old in list_numbers(name).items() if repr(old) != repr(value)}
        problems = list(find_problems(with_values(composed(name), dict.fromkeys(changed, value))))
        told: dict[str, str] = {}
        for line in problems:
            assert "\n" not in line
            told.setdefault(line.partition(":")[0].partition("=")[0], line)
        for path in changed:
            if (line := told.get(write_key(path))) is None:
                accepted.setdefault(write_key(path), set()).add(word)
            else:
                assert str(value) in line, line
    return accepted


@pytest.mark.parametrize("name", CASES)
def test_a_number_that_means_nothing_is_refused_and_what_is_legal_is_listed_here(name):
    command = CASES[name][0]
    found = {key: " ".join(sorted(words)) for key, words in find_accepted(name).items()}
    listed = {**LEGAL, **BY_RULE}
    assert found == {key: listed[f"{command} {key}"] for key in found if f"{command} {key}" in listed}
    assert found


def test_the_lists_hold_nothing_that_no_command_takes():
    taken = {f"{CASES[name][0]} {write_key(path)}" for name in CASES for path in list_numbers(name)}
    assert {*LEGAL, *BY_RULE} <= taken
    assert not set(LEGAL) & set(BY_RULE)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_what_is_legal_passes_the_whole_check_and_a_rule_says_what_is_not(name):
    """Rules are built too, one value at a time: an optimizer without momentum, a schedule without warm-up."""
    earlier = [other for other in list(CASES)[: list(CASES).index(name)] if CASES[other][0] == CASES[name][0]]
    for path in set(list_numbers(name)) - {path for other in earlier for path in list_numbers(other)}:
        key = f"{CASES[name][0]} {write_key(path)}"
        for word in {**LEGAL, **BY_RULE}.get(key, "").split():
            changed = with_values(composed(name), {path: BAD[word]})
            more = find_trainer_problems(changed.cfg) if changed.command == "train" else ()
            if key in LEGAL:
                check(changed, more=more)
                continue
            with pytest.raises(ConfigError) as caught:
                check(changed, more=more)
            (line,) = str(caught.value).splitlines()[1:]
            assert line.startswith(f"{write_key(path)}={'null' if word == 'null' else BAD[word]}")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            "trainer.gradient_clip_val=-1",
            "trainer.gradient_clip_val: must be a finite number >= 0, got -1; null clips ",
        ),
        (
            "trainer.gradient_clip_val=inf",
            "trainer.gradient_clip_val: must be a finite number >= 0, got inf; null clips ",
        ),
        (
            "trainer.accumulate_grad_batches=0",
            "trainer.accumulate_grad_batches: must be a finite number >= 1, got 0; 1 ",
        ),
        (f"seed={2**70}", f"seed: must be a whole number of 64 bits, got {2**70}"),
        ("optim.lr=nan", "optim.lr: must be a finite number > 0, got nan"),
        ("optim.lr=1e300", "optim.lr: must be a number that 32 bits can hold (up to 3.4e+38), got 1e+300"),
        ("trainer.max_steps=-5 +trainer.max_epochs=2", "trainer.max_steps: must be a finite number >= -1, got -5; -1 "),
        ("+trainer.max_time=-1", "trainer.max_time: -1 is no time; write DD:HH:MM:SS"),
        ("+trainer.max_time=00:00:00:00", "trainer.max_time: '00:00:00:00' is no time"),
        ("+trainer.max_time={minutes:-3}", "trainer.max_time: {'minutes': -3} is no time"),
        ("+trainer.limit_val_batches=many", "trainer.limit_val_batches: 'many' is neither a number of batches"),
        ("trainer.log_every_n_steps=null", "trainer.log_every_n_steps: expects int, got None"),
        ("+trainer.profiler=fast", "trainer.profiler: no such value 'fast'; "),
        ("precision=fp8", "precision: no such value 'fp8'; "),
    ],
)
def test_the_command_names_key_value_and_what_is_allowed(words, line, capsys):
    assert main(["check", *words.split()]) == 2
    told = capsys.readouterr().err
    assert "Traceback" not in told
    assert any(each.startswith(line) for each in told.splitlines()), told


def test_a_time_in_parts_is_a_time():
    assert list(find_trainer_problems({"trainer": {"max_steps": 4, "max_time": {"hours": 2}}})) == []


def test_every_range_of_the_trainer_has_a_way_out():
    for key in RANGES:
        (line,) = find_range_problems({key: "senseless"})
        assert line.startswith(f"trainer.{key}: ")
        assert "; " in line


@pytest.mark.parametrize("value", [WIDEST, -WIDEST, 3.4e38, True, "text", None, 0, math.inf])
def test_what_fits_is_not_told(value):
    assert find_width_problem(value) is None


def test_a_limit_takes_numbers_that_no_float_can_hold_apart():
    assert Limit(low=0).problem(2**70) == f"must be a whole number of 64 bits, got {2**70}"
    assert Limit(low=0).problem(10**400).startswith("must be a whole number of 64 bits, got 1000")


def test_a_sampler_of_optuna_takes_seeds_of_32_bits():
    with pytest.raises(ConfigError, match=r"sweep.seed: must be in \[0, 4\.29497e\+09\], got 4294967296"):
        check(compose("sweep", ["sweep=optuna", "sweep.seed=4294967296"]))
