"""What Hydra merges is remembered, and never beyond a change of a file or of what was handed out."""

from pathlib import Path

import pytest

from aptlab.config import choosing, compose
from aptlab.config.choosing import choose_options
from aptlab.config.files import read_default_slots, read_value_entries
from aptlab.config.search_path import read_option_index


def write_option(value: int) -> None:
    path = Path("conf/schedule/mine.yaml")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"# A schedule of my own.\n_target_: aptlab.optim.Cosine\nwarmup: {value}\n")


def test_a_file_that_changed_is_read_again():
    for value in (3, 4, 3):
        write_option(value)
        assert compose("train", ["schedule=mine"]).cfg.schedule.warmup == value


def test_what_was_handed_out_may_be_changed():
    index = read_option_index()
    first, chosen = choose_options("train", ["rope=yarn"], index)
    expected = first["rope"]["factor"]
    first["rope"]["factor"], chosen["rope"] = 99, "ntk"
    again, choices = choose_options("train", ["rope=yarn"], index)
    assert again["rope"]["factor"] == expected != 99
    assert choices["rope"] == "yarn"


def test_nothing_of_hydra_itself_is_in_the_answer():
    values, chosen = choose_options("train", [], read_option_index())
    assert "hydra" not in values
    assert not any(group.startswith("hydra") for group in chosen)


def test_a_nested_value_is_listed_by_its_full_key(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("defaults:\n  - rope: yarn\nseed: 0  # of weights\nfit:\n  _target_: x.Y\n  every: 100  # steps\n")
    entries = [(entry.key, entry.value, entry.comment) for entry in read_value_entries(path)]
    assert entries == [("seed", "0", "of weights"), ("fit.every", "100", "steps")]


PLAIN = {group: sorted(options) for group, options in read_option_index().groups.items() if group != "recipe"}


def merge_both_ways(words: list[str], command: str = "train"):
    """(the answer with plain files put in, None where that is not done; Hydra's merge of all words)"""
    index = read_option_index()
    digest = choosing.digest_files(index)
    return choosing.replace_plain(command, words, index, digest), choosing.merge_all(command, words, index, digest)


def walk(number: int) -> list[str]:
    """The option at this place of every group of a run; one that chooses other groups' goes with other laws below."""
    slots, index = read_default_slots(read_option_index().primaries["train"].path), read_option_index()
    chosen = {group: options[number % len(options)] for group, options in PLAIN.items() if group in slots}
    return [
        f"{group}={option}" for group, option in chosen.items() if not chooses_others(index.groups[group][option].path)
    ]


def chooses_others(path: Path) -> bool:
    return "override /" in path.read_text()


@pytest.mark.parametrize("number", [0, 1, *(pytest.param(number, marks=pytest.mark.slow) for number in (2, 5, 11, 35))])
def test_a_plain_file_put_in_is_what_hydra_merges(number):
    quick, whole = merge_both_ways(walk(number))
    assert quick is not None
    assert repr(quick) == repr(whole)  # the order of keys too


WRITES_ELSEWHERE = {
    "a package": ("rope/mine", "# @package optim\nbase: 5.0\n", ["rope=mine"]),
    "a recipe": ("recipe/mine", "# @package _global_\n# Mine.\nrope:\n  base: 5.0\n", ["recipe=mine", "rope=ntk"]),
    "a file of another group": (
        "model/mine",
        "# Mine.\ndefaults:\n  - decoder\n  - /rope@_global_.rope.inner: yarn\n  - _self_\n",
        ["model=mine", "rope=ntk"],
    ),
    "a choice that follows another": (
        "model/mine",
        "# Mine.\ndefaults:\n  - decoder\n  - /optim@spare: ${schedule}\n  - _self_\n",
        ["model=mine", "rope=ntk"],
    ),
    "a second file": ("rope/mine", "# Mine.\ndefaults:\n  - ntk\n  - _self_\nbase: 5.0\n", ["rope=mine"]),
}


@pytest.mark.parametrize("name", WRITES_ELSEWHERE)
def test_a_file_that_writes_elsewhere_is_left_to_hydra(name):
    path, text, words = WRITES_ELSEWHERE[name]
    path = Path(f"conf/{path}.yaml")
    path.parent.mkdir(parents=True)
    path.write_text(text)
    index = read_option_index()
    assert choosing.replace_plain("train", words, index, choosing.digest_files(index)) is None


def test_a_missing_option_that_is_replaced_is_not_missed():
    Path("conf/model").mkdir(parents=True)
    Path("conf/model/mine.yaml").write_text(
        "# Mine.\ndefaults:\n  - decoder\n  - _self_\n  - override /rope@_global_.rope: gone\n"
    )
    assert compose("train", ["model=mine", "rope=ntk"]).choices["rope"] == "ntk"


def test_a_default_that_is_changed_by_hand_is_no_plain_file():
    """The primary file itself writes into the group: its values go over those of the option."""
    Path("conf").mkdir()
    text = Path(read_option_index().primaries["train"].path).read_text()
    Path("conf/own.yaml").write_text(text.replace("\nseed: 0 ", "\nrope:\n  base: 5.0\nseed: 0 "))
    quick, whole = merge_both_ways(["rope=ntk"], "own")
    assert quick is None
    assert whole[0]["rope"]["base"] == 5.0
