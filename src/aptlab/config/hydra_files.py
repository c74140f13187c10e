"""Hydra reads our option files through libyaml, for most of the time of reading them is YAML's scanner in Python.

Both parts are plugins, registered as Hydra documents it (`Plugins.instance().register`). They act inside `read_quickly`
alone, so a program that uses Hydra beside aptlab sees nothing of them. So does `map_choices`, a function of Hydra's
that is replaced there, for it took a seventh of a composition.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra._internal import defaults_list
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

from aptlab.config.files import parse_config_text, read_config_text, refuse_double_keys

SCHEME = "aptlab-file"
_map_all_choices = defaults_list._create_interpolation_map  # private, as Hydra 1.3 has it
_reads: ContextVar[list[Path] | None] = ContextVar("_reads", default=None)  # files read so far, inside `read_quickly`


@functools.cache
def make_loader() -> Any:
    """OmegaConf's YAML rules (1e-3 is a number, no dates, no key twice) on libyaml's scanner, where PyYAML has it."""
    import yaml
    from omegaconf._utils import get_yaml_loader

    base = get_yaml_loader()
    if not hasattr(yaml, "CSafeLoader"):
        return base

    class Loader(yaml.CSafeLoader):
        yaml_implicit_resolvers = base.yaml_implicit_resolvers
        yaml_constructors = base.yaml_constructors

    return refuse_double_keys(Loader)


class OptionFiles(ConfigSource):
    """A folder of option files."""

    @staticmethod
    def scheme() -> str:
        return SCHEME

    def load_config(self, config_path: str) -> ConfigResult:
        path = Path(self.path, self._normalize_file_name(config_path))
        if not path.is_file():
            raise ConfigLoadError(f"Config not found : {path}")
        reads = _reads.get()
        if reads is not None:
            reads.append(path)
        text = read_config_text(path)
        config = OmegaConf.create(_parse(text, path))
        header = ConfigSource._get_header_dict(text)
        return ConfigResult(config=config, path=f"{SCHEME}://{self.path}", provider=self.provider, header=header)

    def available(self) -> bool:
        return self.is_group("")

    def is_group(self, config_path: str) -> bool:
        return Path(self.path, config_path).is_dir()

    def is_config(self, config_path: str) -> bool:
        return Path(self.path, self._normalize_file_name(config_path)).is_file()

    def list(self, config_path: str, results_filter: Any) -> list[str]:
        names: list[str] = []
        for path in Path(self.path, config_path).iterdir():
            self._list_add_result(names, f"{config_path}/{path.name}".lstrip("/"), path.name, results_filter)
        return sorted(set(names))


class OptionFolders(SearchPathPlugin):
    """Gives the folders of a search path to `OptionFiles`."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for element in search_path.get_path() if _reads.get() is not None else []:
            if element.path and "://" not in element.path:
                element.path = f"{SCHEME}://{element.path}"


def map_choices(overrides: Any, entries: list[Any], self_added: bool) -> Any:
    """What `${group}` in a defaults list may name. Hydra makes it for every file, and reads it where one asks."""
    if any(entry.is_interpolation() for entry in entries):
        return _map_all_choices(overrides, entries, self_added)
    return OmegaConf.create({})


@contextlib.contextmanager
def read_quickly() -> Iterator[list[Path]]:
    """Inside, folders that Hydra is given by their path are read by `OptionFiles`; gives the files as they are read."""
    Plugins.instance().register(OptionFiles)
    Plugins.instance().register(OptionFolders)
    reads: list[Path] = []
    token = _reads.set(reads)
    defaults_list._create_interpolation_map = map_choices
    try:
        yield reads
    finally:
        defaults_list._create_interpolation_map = _map_all_choices
        _reads.reset(token)


@dataclass(frozen=True)
class OptionFile:
    """What one file of options holds: its values, its defaults list, and its package."""

    loaded: dict[str, Any]
    defaults: tuple[Any, ...]
    package: str | None

    @property
    def values(self) -> dict[str, Any]:
        """The values as Hydra would place them; OmegaConf's errors where one is broken. Few files are asked for any."""
        values: Any = OmegaConf.to_container(OmegaConf.create(self.loaded), resolve=False)
        return values

    @property
    def is_plain(self) -> bool:
        """Whether it is values and nothing else: no other file comes with it, and they go where its group is."""
        return not self.defaults and self.package is None

    @property
    def stays_inside(self) -> bool:
        """Whether all that comes with it goes to its own package. To choose another option of a group is no content."""
        return self.package is None and all(_stays_inside(entry) for entry in self.defaults)


def _stays_inside(entry: Any) -> bool:
    words = [str(word) for pair in entry.items() for word in pair] if isinstance(entry, dict) else [str(entry)]
    if any("${" in word for word in words):
        return False  # which file it is depends on the other choices
    return words[0].startswith("override ") or "_global_" not in words[0]


@functools.lru_cache(256)
def _parse(text: str, path: Path) -> dict[str, Any]:
    """What a file holds, to be read alone: it is asked for twice, by Hydra and by whoever chooses without it."""
    return parse_config_text(text, path, make_loader())


def read_option_file(path: Path) -> OptionFile:
    """Read one file by Hydra's rules; ConfigError where it is no YAML."""
    text = read_config_text(path)
    loaded = _parse(text, path)
    own = {key: value for key, value in loaded.items() if key != "defaults"}
    return OptionFile(own, tuple(loaded.get("defaults") or ()), ConfigSource._get_header_dict(text)["package"])
