"""`data.files=` and `data.repo=` choose a source; old words of the data are answered with the new ones."""

from __future__ import annotations

import re

import pytest

from aptlab.config import check, compose, expand_shortcuts, find_new_word, translate_overrides
from aptlab.config.files import read_config_file
from aptlab.config.search_path import find_conf_dir
from aptlab.config.shortcuts import SHORTCUTS, write_typed_key
from aptlab.config.sweeps import expand_grid
from aptlab.errors import ConfigError


@pytest.mark.parametrize("rows", ["packed", "mixed", "segments"])
def test_files_choose_their_source_for_every_kind_of_rows(rows):
    config = compose("train", ["data.files='books/*.txt'", f"data={rows}", "rope=yarn", "context=8192"])
    check(config)
    assert (config.choices["source"], config.choices["data"]) == ("text", rows)
    assert config.cfg.data.source.files == config.cfg.source.files == "books/*.txt"
    assert config.overrides[:2] == ["source=text", "source.files='books/*.txt'"]


def test_a_repository_chooses_the_hub():
    config = compose("train", ["data.repo=a/b", "source.limit=5"])
    check(config)
    assert (config.choices["source"], config.cfg.source.repo, config.cfg.source.limit) == ("hub", "a/b", 5)


def test_segments_choose_rows_that_follow_each_other():
    config = compose("train", ["data.segments=4", "attention=linear"])
    check(config)
    assert (config.choices["data"], config.cfg.data.rows.segments) == ("segments", 4)
    with pytest.raises(ConfigError, match=r"data\.segments=4: chooses data=segments, and data=packed is given too"):
        expand_shortcuts(["data=packed", "data.segments=4"])
    with pytest.raises(ConfigError, match=r"data\.segments.*0"):
        check(compose("train", ["data.segments=0"]))


def test_files_win_over_the_source_of_a_recipe():
    config = compose("train", ["recipe=smoke", "data.files=[a.txt,b.txt]"])
    assert (config.choices["source"], config.cfg.source.files) == ("text", ["a.txt", "b.txt"])


@pytest.mark.parametrize("command", ["eval", "search"])
def test_files_choose_the_source_of_what_is_measured(command):
    config = compose(command, ["data.files=x.txt"])
    assert (config.choices["source"], config.cfg.source.files, config.choices["data"]) == ("text", "x.txt", None)


def test_expanding_twice_changes_nothing():
    once = expand_shortcuts(["+data.files=x", "seed=1"])
    assert once == ["source=text", "source.files=x", "seed=1"]
    assert expand_shortcuts(once) == once


def test_every_job_of_a_sweep_has_the_choice():
    jobs = expand_grid(["data.files=a.txt,b.txt"])
    assert jobs == [["source=text", "source.files=a.txt"], ["source=text", "source.files=b.txt"]]


def test_an_option_of_the_same_class_keeps_the_choice(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf/source").mkdir(parents=True)
    (tmp_path / "conf/source/books.yaml").write_text("_target_: aptlab.data.sources.TextFiles\nfiles: ???\n")
    config = compose("train", ["source=books", "data.files=x"])
    assert (config.choices["source"], config.cfg.source.files) == ("books", "x")
    with pytest.raises(ConfigError, match=r"data\.files: a value is needed; set data\.files=<value>"):
        compose("train", ["source=books"]).resolved()


def test_a_message_names_the_shortcuts_of_the_options_that_they_choose():
    for key, (group, option, full) in SHORTCUTS.items():
        node = read_config_file(find_conf_dir() / group / f"{option}.yaml")
        for word in full.split(".")[1:-1]:
            node = node[word]
        assert write_typed_key(full, node["_target_"]) == key


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["data.files=x", "source=stdlib"],
            "data.files=x: chooses source=text, and source=stdlib is given too; leave one out",
        ),
        (
            ["source=hub", "data.files=x"],
            "data.files=x: chooses source=text, and source=hub is given too; leave one out",
        ),
        (
            ["data.repo=a/b", "data.files=x"],
            "data.repo=a/b: chooses source=hub, and data.files=x is given too; leave one out",
        ),
    ],
)
def test_two_sources_are_an_error(words, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        compose("train", words)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("data=text", "source=text"),
        ("data=stdlib", "source=stdlib"),
        ("data=hub", "source=hub"),
        ("data.source.files=x", "source.files"),
        ("data.field=body", "source.field"),
        ("data.on_bad=skip", "source.on_bad"),
        ("data.parts=[code]", "source.parts"),
        ("data.document_mask=true", "data.rows.document_mask"),
        ("data.mix.short=0.5", "data.rows.short"),
    ],
)
@pytest.mark.parametrize("command", ["train", "eval"])
def test_an_old_word_is_answered_with_the_new_one(command, old, new):
    word = old if "." not in old else old.partition("=")[0]
    with pytest.raises(ConfigError, match=rf"^{re.escape(word)}: is {re.escape(new)} now$"):
        compose(command, [old])


def test_overrides_of_an_older_run_are_translated():
    old = ["data=text", "data.source.files='a b.txt'", "~data.mix.short", "++data.batch=2", "rope=yarn"]
    assert translate_overrides(old) == [
        "source=text",
        "source.files='a b.txt'",
        "~data.rows.short",
        "++data.batch=2",
        "rope=yarn",
    ]
    assert find_new_word("data.batch") is None


def test_a_key_that_one_part_has_is_named_with_the_part():
    with pytest.raises(ConfigError, match=r"smooth\.kappa: .* no such parameter; did you mean smooth\.gate\.kappa\?"):
        check(compose("train", ["smooth=memory", "smooth.kappa=4.0"]))
    with pytest.raises(ConfigError, match=r"data\.val_fraction: .*did you mean data\.split\.val_fraction\?"):
        check(compose("train", ["data.val_fraction=0.1"]))


def test_shares_of_rows_are_checked_before_anything_is_built():
    words = ["data=mixed", "rope=longrope2", "context=8192", "data.rows.short=0.8"]
    with pytest.raises(ConfigError, match=r"data\.rows.*short=0\.8.*packed=0\.3 are more than all rows"):
        check(compose("train", words))
