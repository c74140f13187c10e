from __future__ import annotations

import re
from pathlib import Path

import pytest
from omegaconf.errors import ReadonlyConfigError

from aptlab.config import check, compose, find_conf_dir
from aptlab.config.files import read_config_file
from aptlab.config.search_path import list_config_roots, list_extensions, read_option_index
from aptlab.errors import ConfigError


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def install_extension(tmp_path: Path, monkeypatch, name: str, files: dict[str, str]) -> None:
    """A package with an `aptlab.conf` entry point, as pip would leave it; importing it is an error."""
    site = tmp_path / f"site-{name}"
    write(site / name / "__init__.py", "raise RuntimeError('an extension was imported')")
    for path, text in files.items():
        write(site / name / path, text)
    info = site / f"{name}-1.0.dist-info"
    write(info / "METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    write(info / "entry_points.txt", f"[aptlab.conf]\n{name} = {name}\n")
    monkeypatch.syspath_prepend(str(site))


def test_options_and_values_arrive_in_the_config():
    config = compose("train", ["rope=yarn", "rope.factor=8", "trainer.max_steps=3"])
    assert config.cfg.rope._target_ == "aptlab.nn.positions.rope.YaRN"
    assert config.resolved()["model"]["positions"]["rope"]["factor"] == 8
    assert config.cfg.trainer.max_steps == 3
    assert config.choices["rope"] == "yarn"
    assert config.overrides == ["rope=yarn", "rope.factor=8", "trainer.max_steps=3"]


def test_the_last_choice_of_a_group_wins():
    assert compose("train", ["rope=yarn", "rope=ntk"]).choices["rope"] == "ntk"


def test_a_parameter_that_the_file_does_not_list_needs_no_plus():
    config = compose("train", ["trainer.max_time=00:00:10:00"])
    check(config)
    assert config.cfg.trainer.max_time == "00:00:10:00"


def test_an_added_callback_is_part_of_the_config():
    config = compose(
        "train", ["+callbacks.stop._target_=lightning.pytorch.callbacks.Timer", "+callbacks.stop.duration=1"]
    )
    assert config.cfg.callbacks.stop.duration == 1


def test_a_deleted_key_is_gone_and_a_dict_is_merged():
    config = compose("train", ["~trainer.log_every_n_steps", "callbacks.monitor=null", "data.split={seed: 7}"])
    assert "log_every_n_steps" not in config.cfg.trainer
    assert config.cfg.callbacks.monitor is None
    expected = {"_target_": "aptlab.data.store.split.Split", "val_fraction": 0.05, "seed": 7, "inside": True}
    assert config.cfg.data.split == expected


@pytest.mark.parametrize("path", ["runs/a=b (1)/last.ckpt", "/tmp/my run/x.ckpt", "a:b/c#1.ckpt"])
def test_a_file_name_needs_no_quotes(path):
    assert compose("train", [f"ckpt={path}"]).cfg.ckpt == path


def test_every_problem_of_a_missing_value_names_its_key():
    with pytest.raises(ConfigError, match=re.escape("data.files: a value is needed; set data.files=")):
        compose("train", ["source=text"]).resolved()


def test_the_hash_names_the_experiment_and_not_the_place():
    plain = compose("train", []).hash()
    assert re.fullmatch("[0-9a-f]{16}", plain)
    assert compose("train", ["job=other", "run_dir=x/y", "ckpt=a/b.ckpt", "logger=csv"]).hash() == plain
    assert compose("train", ["seed=1"]).hash() != plain
    assert compose("train", ["rope.base=500.0"]).hash() != plain


def test_composing_leaves_the_global_state_of_hydra_as_it_was():
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    with initialize_config_dir(str(find_conf_dir()), version_base="1.3"):
        mine = GlobalHydra.instance().hydra
        compose("train", [])
        assert GlobalHydra.instance().hydra is mine
    compose("train", [])
    assert not GlobalHydra.instance().is_initialized()


def test_threads_compose_at_the_same_time():
    from concurrent.futures import ThreadPoolExecutor

    names = ["yarn", "ntk", "linear", "standard"] * 3
    with ThreadPoolExecutor(4) as pool:
        configs = list(pool.map(lambda name: compose("train", [f"rope={name}"]), names))
    assert [config.choices["rope"] for config in configs] == names


def test_the_shipped_conf_is_beside_the_package_or_at_the_root_of_the_checkout(tmp_path, monkeypatch):
    import aptlab.config.search_path as places_module

    package = tmp_path / "site" / "src" / "aptlab"
    monkeypatch.setattr(places_module, "__file__", str(write(package / "config/places.py", "")))
    with pytest.raises(ConfigError, match=r"the conf folder of aptlab is missing beside .*; install aptlab again"):
        find_conf_dir()
    (tmp_path / "site/conf").mkdir()
    assert find_conf_dir() == tmp_path / "site/conf"
    (package / "conf").mkdir()
    assert find_conf_dir() == package / "conf"


def test_in_a_checkout_the_local_conf_is_the_shipped_one(monkeypatch):
    monkeypatch.chdir(find_conf_dir().parent)
    assert [place.name for place in list_config_roots()] == ["shipped"]


def test_a_folder_that_links_to_itself_is_read_once():
    write(Path("conf/rope/mine.yaml"), "base: 1.0\n")
    Path("conf/rope/again").symlink_to(Path("conf").resolve())
    assert [option.name for option in read_option_index().groups["rope"].values() if option.place.name == "./conf"] == [
        "mine"
    ]


def test_an_unknown_command_has_no_config():
    with pytest.raises(ConfigError, match=re.escape("there is no config trian.yaml; did you mean train?")):
        compose("trian", [])


def test_a_group_of_another_command_is_refused():
    with pytest.raises(ConfigError, match=re.escape("size=tiny: aptlab eval has no group size; allowed: data")):
        compose("eval", ["size=tiny"])


def test_local_options_are_found():
    write(Path("conf/rope/mine.yaml"), "# Mine.\n_target_: aptlab.nn.positions.rope.Standard\nbase: 77.0\n")
    assert compose("train", ["rope=mine"]).cfg.rope.base == 77.0


def test_a_folder_with_odd_characters_is_searched(tmp_path, monkeypatch):
    odd = tmp_path / "it's a (né) place, ok=1"
    write(odd / "conf/rope/mine.yaml", "_target_: aptlab.nn.positions.rope.Standard\nbase: 78.0\n")
    monkeypatch.chdir(odd)
    assert compose("train", ["rope=mine"]).cfg.rope.base == 78.0


def test_a_local_option_never_shadows_a_shipped_one():
    write(Path("conf/rope/yarn.yaml"), "# Other.\n_target_: aptlab.nn.positions.rope.Standard\n")
    with pytest.raises(
        ConfigError, match=r"rope=yarn is defined twice, by shipped .* and \./conf .*; rename the second"
    ):
        compose("train", [])


def test_an_extension_adds_options_without_being_imported(tmp_path, monkeypatch):
    option = "# From elsewhere.\n_target_: aptlab.nn.positions.rope.Standard\nbase: 5.0\n"
    install_extension(tmp_path, monkeypatch, "aptlab_ext_one", {"conf/rope/ext.yaml": option})
    assert [entry.name for entry in list_extensions()] == ["aptlab_ext_one"]
    assert compose("train", ["rope=ext"]).cfg.rope.base == 5.0
    assert read_option_index().option("rope", "ext").place.name == "extension aptlab_ext_one"


def test_an_extension_without_conf_is_an_error(tmp_path, monkeypatch):
    install_extension(tmp_path, monkeypatch, "aptlab_ext_two", {})
    with pytest.raises(ConfigError, match=r"the extension aptlab_ext_two .* has no conf folder; install it again"):
        read_option_index()


def test_an_option_of_two_extensions_is_an_error(tmp_path, monkeypatch):
    for name in ("aptlab_ext_three", "aptlab_ext_four"):
        install_extension(tmp_path, monkeypatch, name, {"conf/rope/same.yaml": "base: 1.0\n"})
    with pytest.raises(
        ConfigError, match=r"rope=same is defined twice, by extension aptlab_ext_four .* extension aptlab_ext_three"
    ):
        read_option_index()


RECIPES = [
    ("sead: 1", "sead: unknown top-level key; did you mean seed?"),
    ("defaults:\n  - override /rope: yran", "rope=yran: no such option; did you mean yarn?"),
    ("defaults:\n  - override /nope: yarn", "nope"),
    ("seed: [", r"conf/recipe/mine\.yaml.*line"),
    ("trainer:\n  max_step: 3", "trainer.max_step: lightning.Trainer has no such parameter; did you mean max_steps?"),
    ("seed: ${sead}", "seed: needs sead, which is not in the configuration"),
]


@pytest.mark.parametrize(("body", "message"), RECIPES)
def test_a_wrong_recipe_is_refused(body, message):
    write(Path("conf/recipe/mine.yaml"), f"# @package _global_\n# Mine.\n{body}\n")
    with pytest.raises(ConfigError, match=message):
        check(compose("train", ["recipe=mine"]))


def test_a_recipe_without_its_package_line_is_refused():
    write(Path("conf/recipe/mine.yaml"), "# Mine.\nseed: 3\n")
    with pytest.raises(ConfigError, match="recipe=mine: the file must begin with the line `# @package _global_`"):
        compose("train", ["recipe=mine"])


def test_a_recipe_chooses_and_sets():
    body = "# @package _global_\n# Mine.\ndefaults:\n  - override /rope: yarn\nseed: 3\nrope:\n  factor: 16.0\n"
    write(Path("conf/recipe/mine.yaml"), body)
    config = compose("train", ["recipe=mine"])
    assert (config.cfg.rope.factor, config.cfg.seed, config.choices["rope"]) == (16.0, 3, "yarn")
    assert compose("train", ["recipe=mine", "seed=4"]).cfg.seed == 4


def test_a_file_that_is_no_yaml_names_the_line():
    path = write(Path("bad.yaml"), "a: 1\nb: [\n")
    with pytest.raises(ConfigError, match=r"bad\.yaml, line 3: this is no YAML"):
        read_config_file(path)
    with pytest.raises(ConfigError, match=r"a configuration file holds `key: value` lines, this one a list"):
        read_config_file(write(Path("list.yaml"), "- 1\n"))


def test_the_text_of_an_interpolation_is_parsed_once_and_read_each_time():
    from omegaconf import OmegaConf, base
    from omegaconf.errors import GrammarParseError

    compose("train", [])
    for value in (1, 2):
        cfg = OmegaConf.create({"a": value, "b": "${a}", "c": "${b}-${oc.select:gone,${a}}"})
        before = base.parse.cache_info().misses
        assert [cfg.c, cfg.c, cfg.b] == [f"{value}-{value}", f"{value}-{value}", value]
        assert base.parse.cache_info().misses - before == (2 if value == 1 else 0) or before >= 1024
        for _ in range(2):
            with pytest.raises(GrammarParseError):
                OmegaConf.create({"a": "${b"}).a  # noqa: B018


def test_a_resolved_value_follows_its_configuration(monkeypatch):
    config = compose("train", ["size=debug"])
    first = config.resolved()
    first["model"]["vocab"] = "changed by its holder"
    assert config.resolved()["model"]["vocab"] is None
    for value in (1, True, 1.0, 300):
        found = config.replaced({"vocab": value}).resolved()["model"]["vocab"]
        assert (found, type(found)) == (value, type(value))
    assert config.resolved()["model"]["vocab"] is None
    with pytest.raises(ReadonlyConfigError):
        config.cfg.vocab = 9
    config = config.replaced({"job": "${oc.env:A_WORD}"}, typed=True)
    for value in ("one", "two"):
        monkeypatch.setenv("A_WORD", value)
        assert config.resolved()["job"] == value


def test_a_value_that_is_missing_is_named_each_time():
    config = compose("train", ["size=debug", "source=text"])
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"^data\.files: a value is needed"):
            config.resolved()
