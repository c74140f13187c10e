"""A key that was written at another place, or in another tool's word, is answered with the key that means it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from aptlab.cli import main
from aptlab.config import check, compose
from aptlab.config.suggestions import WORDS, list_keys, list_open_keys
from aptlab.errors import ConfigError
from aptlab.training.plan import check_training

EVALS = "a run measures what evals holds: +eval@evals.ruler=ruler adds this one, and aptlab eval ckpt=last eval=ruler"


@pytest.mark.parametrize(
    ("word", "answer"),
    [
        ("batch=8", "batch: unknown top-level key; did you mean data.batch?"),
        ("max_steps=10", "max_steps: unknown top-level key; did you mean trainer.max_steps?"),
        ("lr=1e-3", "lr: unknown top-level key; did you mean optim.lr?"),
        ("+lr=1e-3", "lr: unknown top-level key; did you mean optim.lr?"),
        ("heads=4", "heads: unknown top-level key; did you mean size.heads?"),
        ("dropout=0.1", "dropout: unknown top-level key; did you mean attention.dropout or ffn.dropout?"),
        # parameters that the class takes and the file does not list
        ("max_epochs=2", "max_epochs: unknown top-level key; did you mean trainer.max_epochs?"),
        # other tools' words
        ("seq_len=128", "seq_len: unknown top-level key; did you mean context?"),
        ("epochs=3", "epochs: unknown top-level key; did you mean trainer.max_epochs?"),
        ("learning_rate=1", "learning_rate: unknown top-level key; did you mean optim.lr?"),
        ("batch_size=8", "batch_size: unknown top-level key; did you mean data.batch?"),
        ("train.batch_size=8", "train: unknown top-level key; did you mean data.batch?"),
        ("warmup_steps=9", "warmup_steps: unknown top-level key; did you mean schedule.warmup (a share of all steps)?"),
        # below a part that does not take them
        ("trainer.lr=1", "trainer.lr: lightning.Trainer has no such parameter; did you mean optim.lr?"),
        ("trainer.validate_every=5", "lightning.Trainer has no such parameter; did you mean validate.every?"),
        ("callbacks.every=5", "did you mean callbacks.tasks.every or callbacks.checkpoints.every?"),
        # keys of options that are not chosen
        ("kappa=3", "kappa: unknown top-level key; smooth.gate.kappa is a key of smooth=left_spin or smooth=memory"),
        ("rope.kappa=3", "has no such parameter; smooth.gate.kappa is a key of smooth=left_spin or smooth=memory"),
        # an option that leaves a part out is never what was meant
        ("rope=nope", "rope=nope: no such option; allowed: "),
        # words that are something else
        ("data.source=text", "data.source: is source now"),
        *((f"data.{word}=x", "did you mean data.files?") for word in ("path", "file", "dataset", "text", "dir")),
        ("data.name=x", "data.name: data.repo=owner/name chooses a data set of the Hub"),
        ("data.tokenizer=bpe", "choose a part by its group, as in tokenizer=bpe"),
        ("eval=ruler", f"eval=ruler: {EVALS}"),
        ("evals=ruler", f"evals=ruler: {EVALS}"),
    ],
)
def test_a_key_at_another_place_is_named(word, answer):
    with pytest.raises(ConfigError, match=re.escape(answer)):
        check(compose("train", [word]))


@pytest.mark.parametrize(
    ("command", "words", "answer"),
    [
        ("search", ["target=64", "population=8"], "did you mean search.population?"),
        ("generate", ["max_tokens=4"], "did you mean max_new_tokens?"),
        ("eval", ["samples=3"], "eval.samples is a key of eval=needle, eval=passkey or eval=ruler"),
    ],
)
def test_other_commands_name_their_own_keys(command, words, answer):
    with pytest.raises(ConfigError, match=re.escape(answer)):
        compose(command, words)


def test_every_other_word_means_a_key_of_some_command():
    known = set()
    for command in ("train", "generate"):
        config = compose(command, [])
        known |= {*list_keys(config.resolved()), *list_open_keys(config.resolved()), *config.choices}
    known |= {"data.files", "data.repo", "rope.factor", "device=ddp device.devices", "run_dir", "ckpt"}
    assert {key.partition(" (")[0] for key in WORDS.values()} <= known
    assert known.isdisjoint(WORDS)


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (
            "validate.every=0",
            "validate.every: validate=end measures at the end of the run alone",
        ),
        ("trainer.max_time=abc", "trainer.max_time: 'abc' is no time; write DD:HH:MM:SS, as in 00:01:30:00"),
    ],
)
def test_a_value_that_means_nothing_is_told_with_the_way_out(words, answer):
    with pytest.raises(ConfigError, match=re.escape(answer)):
        check_training(compose("train", words.split()))


def write_option(name: str, text: str, group: str = "rope") -> Path:
    path = Path("conf", group, f"{name}.yaml")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("group", "text", "holds", "target"),
    [
        ("rope", "# Nothing.\n", "it is empty", "aptlab.nn.positions.rope."),
        ("rope", "target: x\nbase: 5\n", "it holds target, base", "aptlab.nn.positions.rope."),
        ("norm", "# Nothing.\n", "it is empty", "aptlab.nn.norm."),
    ],
)
def test_an_option_that_names_no_class_is_told_with_its_file(group, text, holds, target):
    path = write_option("mine", text, group)
    with pytest.raises(ConfigError, match=re.escape(f"{path.name} has no _target_ ({holds})")) as caught:
        check(compose("train", [f"{group}=mine"]))
    assert len(str(caught.value).splitlines()) == 2
    assert f"write the class that it is, as in `_target_: {target}" in str(caught.value)


def test_a_key_that_stands_twice_is_told_by_show_too(capsys):
    write_option("twice", "_target_: aptlab.nn.positions.rope.YaRN\nbase: 5\nbase: 6\n")
    assert main(["show", "rope=twice"]) == 2
    assert "twice.yaml, line 3: this is no YAML: found duplicate key base" in capsys.readouterr().err


def test_show_tells_the_parts_inside_an_option_and_what_chooses_them(capsys):
    assert main(["show", "data=packed"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^  data\.split\.val_fraction +float in \[0, 1\], default 0\.05$", shown, re.MULTILINE)
    assert re.search(r"^  data\.rows\.document_mask +bool, default false$", shown, re.MULTILINE)
    assert re.search(r"^  data\.files=… +source=text source\.files=…$", shown, re.MULTILINE)
    assert main(["show", "data=text"]) == 0
    old = capsys.readouterr().out
    assert old.startswith("data=text is source=text now\n")
    assert re.search(r"^  on_bad +", old, re.MULTILINE)
