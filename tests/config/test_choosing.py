"""What Hydra merges is remembered, and never beyond a change of a file or of what was handed out."""

from pathlib import Path

from aptlab.config import compose
from aptlab.config.choosing import choose_options
from aptlab.config.files import read_value_entries
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
