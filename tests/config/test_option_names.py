"""The option of a class comes from the files that name classes, and from nowhere else."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from aptlab.config.option_names import find_option_name, get_option_name, require_option_name
from aptlab.errors import ConfigError
from aptlab.nn.attention import FullAttention
from aptlab.nn.positions.rope import Standard, YaRN


@dataclass(frozen=True)
class Unlisted:
    """A class that no file names."""


def test_the_first_of_two_options_with_one_class_counts(tmp_path, monkeypatch):
    (tmp_path / "conf" / "rope").mkdir(parents=True)
    (tmp_path / "conf" / "rope" / "a_copy.yaml").write_text("# A copy.\n_target_: aptlab.nn.positions.rope.YaRN\n")
    monkeypatch.chdir(tmp_path)
    assert find_option_name("rope", YaRN) == "yarn"
    assert find_option_name("attention", FullAttention) == "full"


def test_a_file_of_ones_own_names_a_class_of_ones_own(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("class Slow:\n    pass\n")
    (tmp_path / "conf" / "rope").mkdir(parents=True)
    (tmp_path / "conf" / "rope" / "slow_start.yaml").write_text('# Slow.\n_target_: "mine.Slow"\n')
    (tmp_path / "conf" / "rope" / "gone.yaml").write_text("# Gone.\n_target_: no_such_package_anywhere.Slow\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    from mine import Slow  # pyright: ignore[reportMissingImports]

    assert find_option_name("rope", Slow) == "slow_start"


def test_a_class_without_an_option_is_called_by_its_own_name():
    assert find_option_name("rope", Unlisted) is None
    assert find_option_name("no_such_group", Standard) is None
    assert get_option_name("rope", Unlisted) == "Unlisted"
    with pytest.raises(ConfigError, match=r"no option of rope builds .*Unlisted; add conf/rope/<name>\.yaml with _ta"):
        require_option_name("rope", Unlisted)
