"""A key is set where it is named; options that are defined twice, and several problems at once."""

from __future__ import annotations

import pytest

from aptlab.config import check, compose
from aptlab.errors import ConfigError


def test_the_nodes_own_key_comes_first():
    config = compose("train", ["data.seed=7"])
    assert (config.cfg.data.seed, config.cfg.data.split.seed) == (7, 0)


def test_a_short_name_that_nothing_has_is_still_an_error():
    with pytest.raises(ConfigError, match=r"data.fils: .*no such parameter"):
        check(compose("train", ["data.fils='x'", "data.files='y'"]))


def test_an_equal_copy_of_the_shipped_files_is_no_second_definition(tmp_path):
    import shutil

    from aptlab.config import find_conf_dir
    from aptlab.config.search_path import read_option_index

    shutil.copytree(find_conf_dir(), tmp_path / "conf", ignore=shutil.ignore_patterns("recipe"))
    assert read_option_index().groups["rope"]["yarn"].place.name == "shipped"
    compose("train", ["rope=yarn"])
    (tmp_path / "conf" / "rope" / "yarn.yaml").write_text("# Mine.\n_target_: aptlab.nn.positions.rope.Standard\n")
    with pytest.raises(ConfigError, match=r"rope=yarn is defined twice.*in a checkout of aptlab: pip install -e"):
        compose("train", [])


def test_a_wrong_option_does_not_hide_a_wrong_key():
    with pytest.raises(ConfigError, match=r"(?s)rope=yran: no such option; .*sead: unknown top-level"):
        compose("train", ["rope=yran", "sead=1"])
