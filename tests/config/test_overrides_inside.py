"""A key that one inner part alone has can be set without naming the part."""

from __future__ import annotations

import pytest

from aptlab.config import check, compose
from aptlab.errors import ConfigError


def test_files_of_text_data_are_set_by_their_short_name():
    config = compose("train", ["data=text", "data.files='books/*.txt'"])
    check(config)
    assert config.cfg.data.source.files == "books/*.txt"
    assert "files" not in config.cfg.data


def test_an_inner_number_is_set_by_its_short_name():
    assert compose("train", ["smooth=memory", "smooth.kappa=4.0"]).cfg.smooth.gate.kappa == 4.0


def test_the_nodes_own_key_comes_first():
    config = compose("train", ["data.seed=7"])
    assert (config.cfg.data.seed, config.cfg.data.split.seed) == (7, 0)


def test_a_short_name_that_nothing_has_is_still_an_error():
    with pytest.raises(ConfigError, match=r"data.fils: .*no such parameter"):
        check(compose("train", ["data=text", "data.fils='x'", "data.files='y'"]))
