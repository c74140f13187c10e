"""The quick reader gives what Hydra's own gives, for every option and for what YAML makes doubtful."""

from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from aptlab.config import compose
from aptlab.config.hydra_files import OptionFiles, make_loader, read_quickly
from aptlab.config.search_path import find_conf_dir
from aptlab.errors import ConfigError

FILES = sorted(find_conf_dir().rglob("*.yaml"))
DOUBTFUL = {
    "numbers": "a: 1e-3\nb: 1_000\nc: .5\nd: -1.0E+4\ne: .inf\nf: .nan\ng: 0x1F\nh: 010\ni: 12e03",
    "not numbers": "a: 1e\nb: 1.2.3\nc: e3\nd: 2024-01-31\ne: 12:30\nf: 12:30:45",
    "words": "a: yes\nb: off\nc: null\nd: ~\ne: 'null'\nf: True\ng: y",
    "text": 'a: |\n  two\n  lines\nb: >-\n  one\n  line\nc: "\\u00e9\\n"\nd: ${context}',
    "shared": "a: &x {b: 1}\nc: *x\nd:\n  <<: *x\n  e: 2",
    "empty": "# nothing\n",
}


@pytest.mark.parametrize("text", DOUBTFUL.values(), ids=DOUBTFUL)
def test_a_text_is_read_as_by_omegaconf(text):
    expected = OmegaConf.create(text) if text[0] != "#" else OmegaConf.create()
    assert repr(OmegaConf.create(yaml.load(text, make_loader()) or {})) == repr(expected)


def test_every_file_is_read_as_by_omegaconf():
    assert len(FILES) > 100
    assert [path for path in FILES if yaml.load(path.read_text(), make_loader()) != read_slowly(path)] == []


def read_slowly(path: Path):
    return OmegaConf.to_container(OmegaConf.load(path), resolve=False)


@pytest.mark.parametrize("text", ["a: 1\na: 2\n", "a: [1\n", "a: {b: 1, b: 2}\n"])
def test_what_omegaconf_refuses_is_refused_at_the_same_place(text):
    messages = []
    for loader in (make_loader(), None):
        with pytest.raises(yaml.YAMLError) as caught:
            OmegaConf.create(text) if loader is None else yaml.load(text, loader)
        messages.append((type(caught.value).__mro__[1], caught.value.problem_mark.line))
    assert messages[0] == messages[1]


def test_it_is_no_plugin_of_other_users_of_hydra(tmp_path):
    import hydra

    (tmp_path / "main.yaml").write_text("a: 1\n")
    with read_quickly():
        pass
    with hydra.initialize_config_dir(str(tmp_path), version_base="1.3"):
        loader = hydra.core.global_hydra.GlobalHydra.instance().config_loader()
        assert {source.scheme() for source in loader.get_sources()} == {"pkg", "file", "structured"}


def test_a_defaults_list_may_name_what_was_chosen_beside_it(tmp_path):
    import hydra
    from hydra._internal import defaults_list

    files = {
        "main": "defaults: [a: x, b: y, ab: '${a}-${b}', _self_]\n",
        "a/x": "v: 1\n",
        "a/z": "v: 2\n",
        "b/y": "v: 3\n",
    }
    files |= {"ab/x-y": "v: 4\n", "ab/z-y": "defaults: [/b@inner: y]\nv: 5\n"}
    for name, text in files.items():
        (tmp_path / name).with_suffix(".yaml").parent.mkdir(exist_ok=True)
        (tmp_path / name).with_suffix(".yaml").write_text(text)

    def read(*words: str):
        with hydra.initialize_config_dir(str(tmp_path), version_base="1.3"):
            return hydra.compose("main", [*words])

    before = defaults_list._create_interpolation_map
    for words, found in (((), {"v": 4}), (("a=z",), {"v": 5, "inner": {"v": 3}})):
        with read_quickly():
            assert defaults_list._create_interpolation_map is not before
            quick = read(*words)
        assert quick == read(*words)
        assert quick.ab == found
    assert defaults_list._create_interpolation_map is before


def test_a_folder_lists_its_options_and_groups(tmp_path):
    (tmp_path / "rope").mkdir()
    (tmp_path / "rope" / "mine.yaml").write_text("a: 1\n")
    (tmp_path / "train.yaml").write_text("a: 1\n")
    source = OptionFiles(provider="main", path=f"{OptionFiles.scheme()}://{tmp_path}")
    assert (source.available(), source.list("", None), source.list("rope", None)) == (True, ["rope", "train"], ["mine"])
    assert (source.is_config("rope/mine"), source.is_group("rope"), source.is_config("rope")) == (True, True, False)


BROKEN = {
    "bracket": (
        b"# Mine.\nbase: [1\n",
        r"mine\.yaml, line 3: this is no YAML: ",
    ),
    "twice": (b"# Mine.\nbase: 1\nbase: 2\n", r"mine\.yaml, line 3: this is no YAML: found duplicate key base"),
    "bytes": (b"# Mine.\nbase: \xff\n", r"mine\.yaml: this is no YAML: 'utf-8' codec"),
    "list": (b"# Mine.\n- a\n", r"mine\.yaml: a configuration file holds `key: value` lines, this one a list"),
    "words": (b"# Mine.\njust words\n", r"mine\.yaml: a configuration file holds `key: value` lines, this one a str"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_named_with_its_line(name):
    content, message = BROKEN[name]
    Path("conf/rope").mkdir(parents=True)
    Path("conf/rope/mine.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        compose("train", ["rope=mine"])
    compose("train", ["rope=yarn"])
