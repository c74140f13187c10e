"""Hydra reads our option files through libyaml, for most of the time of reading them is YAML's scanner in Python.

Both parts are plugins, registered as Hydra documents it (`Plugins.instance().register`). They act inside `read_quickly`
alone, so a program that uses Hydra beside aptlab sees nothing of them.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

from aptlab.config.files import parse_config_text, read_config_text, refuse_double_keys

SCHEME = "aptlab-file"
_active = ContextVar("_active", default=False)


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
        text = read_config_text(path)
        config = OmegaConf.create(parse_config_text(text, path, make_loader()))
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
        for element in search_path.get_path() if _active.get() else []:
            if element.path and "://" not in element.path:
                element.path = f"{SCHEME}://{element.path}"


@contextlib.contextmanager
def read_quickly() -> Iterator[None]:
    """Inside, folders that Hydra is given by their path are read by `OptionFiles`."""
    Plugins.instance().register(OptionFiles)
    Plugins.instance().register(OptionFolders)
    token = _active.set(True)
    try:
        yield
    finally:
        _active.reset(token)
