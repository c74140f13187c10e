"""Wrong configurations: each is refused, with the full key and a way out, before torch is imported."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from aptlab.config import check, compose
from aptlab.errors import ConfigError

ROPE = "aptlab.nn.positions.rope"
# (overrides, what the message says); one line per mistake that a user makes
WRONG = [
    # names
    ("sead=1", "sead: unknown top-level key; did you mean seed?"),
    ("+sead=1", "sead: unknown top-level key; did you mean seed?"),
    ("trainr.max_steps=5", "trainr: unknown top-level key; did you mean trainer?"),
    ("rop=yarn", "rop: unknown top-level key; did you mean rope?"),
    ("rope=yran", "rope=yran: no such option; did you mean yarn?"),
    ("size=tinny", "size=tinny: no such option; did you mean tiny?"),
    ("logger=none", "logger=none: is logger=csv now"),
    ("data=wikipedia", "data=wikipedia: no such option; allowed: "),
    ("+new/group=yarn", "+new/group=yarn: there is no config group new/group"),
    ("new/group=yarn", "new/group=yarn: there is no config group new/group"),
    ("sweep.name=x", "sweep.name=x: this belongs to a sweep; add -m"),
    ("launcher=process", "launcher=process: this belongs to a sweep; add -m"),
    ("paths.rot=x", "paths.rot: unknown key; did you mean root?"),
    ("seed.x=1", "seed.x: seed is the value 0 and has no keys"),
    ("~sead", "sead: unknown top-level key; did you mean seed?"),
    ("~paths.rot", "paths.rot: unknown key; did you mean root?"),
    (
        "model.positions.rope.factor=8",
        "model.positions.rope.factor: model.positions.rope is ${rope}; set rope.factor instead",
    ),
    # words that were others before
    ("rope=yarn rope.law=su", "rope.law: is rope.temperature_law now"),
    (
        f"rope=irope rope.inner._target_={ROPE}.YaRN +rope.inner.law=su",
        "rope.inner.law: is rope.inner.temperature_law now",
    ),
    ("rope._target_=aptlab.nn.rope.YaRN", "rope._target_: aptlab.nn.rope.YaRN is aptlab.nn.positions.rope.YaRN now"),
    (
        "attention._target_=aptlab.nn.linear.LinearAttention",
        "attention._target_: aptlab.nn.linear.LinearAttention is aptlab.nn.attention.LinearAttention now",
    ),
    # parameters
    ("trainer.max_step=5", "trainer.max_step: lightning.Trainer has no such parameter; did you mean max_steps?"),
    ("rope=yarn rope.fctor=2", "rope.fctor: aptlab.nn.positions.rope.YaRN has no such parameter; did you mean factor?"),
    (
        "rope.factor=2",
        "rope.factor: aptlab.nn.positions.rope.Standard has no such parameter; it takes base, layout, temperature_on; ",
    ),
    ("+smooth.alpa=1", "smooth.alpa: aptlab.nn.smooth.Plain has no such parameter"),
    (
        "smooth=left_spin smooth.gate.kapa=1",
        "smooth.gate.kapa: aptlab.nn.smooth.Gate has no such parameter; did you mean",
    ),
    ("device.devices=3", "device.devices: aptlab.device.Auto has no such parameter; it takes no parameters"),
    ("~model.shape", "model.shape: aptlab.models.Decoder needs a value"),
    # types
    ("rope=yarn rope.factor=hello", "rope.factor: expects float or null, got 'hello'"),
    ("optim.lr='1e-3'", "optim.lr: expects float, got '1e-3'"),
    ("optim.lr=true", "optim.lr: expects float, got True"),
    ("seed=abc", "seed: expects int, got 'abc'"),
    ("seed=true", "seed: expects int, got True"),
    ("context=1.5", "context: expects int, got 1.5"),
    ("trainer.max_steps=1e3", "trainer.max_steps: expects int, got 1000.0; write 1000"),
    ("trainer.gradient_clip_val=abc", "trainer.gradient_clip_val: expects int or float or null, got 'abc'"),
    ("compile=1", "compile: expects bool, got 1"),
    ("job=2024", "job: expects str, got 2024; quote it: '\"2024\"'"),
    ("data.cache=3", "data.cache: expects str or null, got 3; quote it"),
    ("source.parts=prose", "source.parts: expects a list of str, got 'prose'; write [prose]"),
    ("size.dim=null", "size.dim: expects int, got None"),
    ("model.rope=yarn", "model.rope: aptlab.models.Decoder has no such parameter; did you mean model.positions.rope?"),
    (
        "model.positions.rope=yarn",
        "model.positions.rope: expects Rope, got 'yarn'; choose a part by its group, as in rope=yarn",
    ),
    (
        "model.norm=rms",
        "model.norm: expects Callable[..., Norm], got 'rms'; choose a part by its group",
    ),
    # allowed values
    ("precision=bf16", "precision: no such value 'bf16'; did you mean bf16-true?"),
    ("load=all", "load: no such value 'all'; allowed: auto, importance, remap, resume, weights"),
    ("rope=yarn rope.ramp=indx", "rope.ramp: no such value 'indx'; did you mean index?"),
    ("trainer.precision=16-mixd", "trainer.precision: no such value '16-mixd'; did you mean 16-mixed?"),
    ("logger.mode=onlin", "logger.mode=onlin is not a way of tracking; did you mean online?"),
    # limits
    ("rope=yarn rope.factor=-1", "rope.factor: must be a finite number >= 1, got -1"),
    ("rope.base=inf", "rope.base: must be a finite number > 0, got inf"),
    ("rope.base=nan", "rope.base: must be a finite number > 0, got nan"),
    ("context=0", "context: must be a finite number >= 1, got 0"),
    ("seed=-1", "seed: must be a finite number >= 0, got -1"),
    ("schedule.warmup=1.5", "schedule.warmup: must be in [0, 1), got 1.5"),
    ("attention.dropout=1.0", "attention.dropout: must be in [0, 1), got 1.0"),
    ("job=../x", "job: must be the name of a folder, of letters, digits and . _ -, got '../x'"),
    # several values at once
    ("size.heads=5", "size.dim=128 is not divisible by heads=5; nearest dims: 125, 130, or set head_dim"),
    ("size.kv_heads=3", "size.kv_heads=3 does not divide heads=4; allowed: [1, 2, 4]"),
    ("size.head_dim=5", "size.head_dim=5 is odd, and rotary pairs need an even one"),
    ("rope=yarn rope.beta_fast=0.5", "rope.beta_fast=0.5 must be larger than beta_slow=1.0"),
    # missing values and broken references
    ("source=text", "data.files: a value is needed; set data.files=<value>"),
    ("tokenizer=file", "tokenizer.path: a value is needed; set tokenizer.path=<value>"),
    ("rope=null", "model.positions.rope: needs rope, which is not in the configuration"),
    ("data.seed=${sed}", "data.seed: needs sed, which is not in the configuration"),
    # syntax
    ("seed=[", "seed=[: this is no override; write key=value"),
    ("seed", "seed: this is no override; write key=value"),
    ("=1", "=1: this is no override; write key=value"),
    ("seed=1,2", "seed=1,2: several values are a sweep; add -m"),
    ("rope={factor:8}", "rope: takes the name of an option; set single values as rope.<key>=<value>"),
    # code that a configuration must not run
    ("rope._target_=os.system", "rope: _target_ os.system is not trusted"),
    ("+callbacks.x._target_=torch.load", "callbacks.x: _target_ torch.load is not trusted"),
    (
        "rope._target_=aptlab.nn.positions.rope.Yarn",
        "rope._target_: aptlab.nn.positions.rope has no Yarn; did you mean YaRN?",
    ),
    (
        "rope._target_=aptlab.nn.positions.ropes.YaRN",
        "rope._target_: aptlab.nn.positions has no ropes; did you mean rope?",
    ),
    ("rope._target_=3", "rope: _target_ must be a dotted name, got 3"),
]


@pytest.mark.parametrize(("overrides", "message"), WRONG, ids=[text for text, _ in WRONG])
def test_a_wrong_config_is_refused_with_a_way_out(overrides, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        check(compose("train", overrides.split()))


def test_all_problems_are_told_at_once():
    with pytest.raises(ConfigError) as caught:
        check(compose("train", ["rope.factor=8", "seed=-1", "trainer.max_step=3", "compile=1"]))
    lines = str(caught.value).splitlines()
    assert lines[0] == "the config has problems:"
    assert {line.split(":")[0] for line in lines[1:]} == {"rope.factor", "seed", "trainer.max_step", "compile"}
    assert len(lines) == 5


def test_wrong_overrides_are_told_at_once():
    with pytest.raises(ConfigError) as caught:
        compose("train", ["rope=yran", "size=tinny", "seed=["])
    assert len(str(caught.value).splitlines()) == 3


def test_a_message_has_no_noise_of_hydra():
    with pytest.raises(ConfigError) as caught:
        compose("train", ["sead=1"])
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    assert "hydra" not in str(caught.value).lower()


@pytest.mark.parametrize("overrides", ["rope=yran", "size.heads=5", "seed=[", "rope._target_=os.system"])
def test_the_command_exits_2_without_traceback_torch_or_run_folder(overrides, tmp_path):
    code = (
        "import sys; from aptlab.cli import main; code = main(sys.argv[1:]);"
        "sys.exit(99 if {'torch', 'lightning', 'numpy'} & set(sys.modules) else code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "train", *overrides.split()],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={key: value for key, value in os.environ.items() if key != "APTLAB_DEBUG"},
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []
