"""Where configuration files live: shipped with aptlab, in installed extensions, and in ./conf.

Everything here reads names of files; it imports no Hydra and no extension.
"""

from __future__ import annotations

import importlib.util
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from aptlab.bounded import OPTION, read_bounded_text
from aptlab.errors import ConfigError, suggest_option
from aptlab.extensions import CONF, list_entry_points

if TYPE_CHECKING:
    from importlib import metadata

SHIPPED, LOCAL = "shipped", "./conf"
MOST_FILES, MOST_FOLDERS, DEEPEST = 10_000, 2_000, 8  # of one place; ours has some 300 files in 40 folders, 1 deep
GROUPS_FILE = "groups.yaml"  # beside the primary configs, and none of them: see `aptlab.config.bases`


@dataclass(frozen=True)
class ConfigRoot:
    """One folder of configuration files and how to call it in messages."""

    name: str
    path: Path


@dataclass(frozen=True)
class Option:
    """One file of a group: `rope=yarn` is the option `yarn` of the group `rope`. A primary has group ""."""

    group: str
    name: str
    path: Path
    place: ConfigRoot

    def comment(self) -> str:
        """The first comment line of the file (a `# @package` line does not count), or nothing."""
        for line in read_bounded_text(self.path, OPTION).splitlines():
            if line.startswith("#") and "@package" not in line:
                return line.lstrip("# ").strip()
            if line.strip() and not line.startswith("#"):
                break
        return ""


@dataclass(frozen=True)
class OptionIndex:
    """Every option of every group, and the primary configs (`train`, `eval`, …), over all places."""

    primaries: dict[str, Option] = field(default_factory=dict)
    groups: dict[str, dict[str, Option]] = field(default_factory=dict)

    def option(self, group: str, name: str) -> Option:
        """The option, or a ConfigError that suggests one."""
        if group not in self.groups:
            raise ConfigError(f"there is no config group {group}{suggest_option(group, self.groups)}")
        options = self.groups[group]
        if name not in options:
            raise ConfigError(f"{group}={name}: no such option{suggest_option(name, options)}")
        return options[name]


def find_conf_dir() -> Path:
    """The shipped configuration: beside the package in a wheel, at the root of a checkout otherwise."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "conf", package.parent.parent / "conf"):
        if folder.is_dir():
            return folder
    raise ConfigError(f"the conf folder of aptlab is missing beside {package}; install aptlab again")


def list_extensions() -> list[metadata.EntryPoint]:
    """Installed packages that add options, by name."""
    return list_entry_points(CONF)


def list_config_roots() -> list[ConfigRoot]:
    """All places in search order: shipped, extensions, ./conf of the current folder."""
    shipped = find_conf_dir()
    found = [ConfigRoot(SHIPPED, shipped)]
    found += [ConfigRoot(f"extension {entry.name}", _extension_conf(entry)) for entry in list_extensions()]
    local = Path.cwd() / "conf"
    if local.is_dir() and not local.samefile(shipped):
        found.append(ConfigRoot(LOCAL, local))
    return found


def read_option_index() -> OptionIndex:
    """Read all places; an option that differs in two places is a ConfigError, never a shadow, and so is a link out.

    An equal copy in ./conf is the same option: a checkout holds one of every shipped file.
    """
    result, doubles = OptionIndex(), []
    places = list_config_roots()
    homes = _list_homes(places)
    for place in places:
        for group, path in _yaml_files(place.path, homes):
            options = result.groups.setdefault(group, {}) if group else result.primaries
            option = Option(group, path.stem, path, place)
            known = options.setdefault(path.stem, option)
            copied = place.name == LOCAL and known.path.read_bytes() == path.read_bytes()
            if known is not option and not copied:
                doubles.append(_double(known, option))
    if doubles:
        more = f"\n… and {len(doubles) - 3} more" if len(doubles) > 3 else ""
        raise ConfigError("\n".join(doubles[:3]) + more)
    return result


def _double(first: Option, second: Option) -> str:
    name = f"{first.group}={first.name}" if first.group else f"{first.name}.yaml"
    return (
        f"{name} is defined twice, by {first.place.name} ({first.path}) and {second.place.name} ({second.path}); "
        f"rename the second, for example my_{second.name}.yaml (in a checkout of aptlab: pip install -e .)"
    )


def _yaml_files(root: Path, homes: Sequence[str]) -> Iterator[tuple[str, Path]]:
    """(group, file) of every .yaml below a folder; follows links into `homes` alone, and each folder once.

    ConfigError for a link that leads elsewhere, a file that is none or too large, and more than a tree of options has.
    """
    seen: set[str] = set()
    found = 0
    for folder, names, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            names.clear()
            continue
        seen.add(real)
        if not any(real == home or real.startswith(home + os.sep) for home in homes):
            raise ConfigError(_outside(folder, real))
        names[:] = sorted(name for name in names if not name.startswith((".", "__")))
        group = Path(folder).relative_to(root).as_posix()
        if len(seen) > MOST_FOLDERS or group.count("/") >= DEEPEST:
            raise ConfigError(
                f"{root} is no tree of options: {folder} is one folder too many, or too deep; move it away"
            )
        for name in sorted(files):
            if name.endswith(".yaml") and not name.startswith(".") and not (group == "." and name == GROUPS_FILE):
                found += 1
                if found > MOST_FILES:
                    raise ConfigError(f"{root} has more than {MOST_FILES:,} option files; move them to another folder")
                _refuse_file(os.path.join(folder, name), homes)
                yield ("" if group == "." else group), Path(folder, name)


def _refuse_file(path: str, homes: Sequence[str]) -> None:
    """ConfigError for an option file that is a link out of the conf folders, no file, or too large."""
    try:
        status = os.lstat(path)
        if stat.S_ISLNK(status.st_mode):
            real = os.path.realpath(path)
            if not any(real.startswith(home + os.sep) for home in homes):
                raise ConfigError(_outside(path, real))
            status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError(f"{path} is no file (a pipe, socket or device); take it away")
        OPTION.check_size(status.st_size)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}; take it away") from None
    except ValueError as error:
        raise error if isinstance(error, ConfigError) else ConfigError(f"{path} cannot be read: {error}") from None


def _outside(path: str, real: str) -> str:
    return (
        f"{path} is a link to {real}, outside of the conf folders, and options are read inside them alone; copy what "
        "you need of it there, or take the link away"
    )


def _list_homes(places: Sequence[ConfigRoot]) -> list[str]:
    """Where links among options may lead: the conf folders, and the recipes beside each, as conf/recipe does."""
    real = [os.path.realpath(place.path) for place in places]
    return real + [os.path.join(os.path.dirname(path), "recipes") for path in real]


def _extension_conf(entry: metadata.EntryPoint) -> Path:
    """The conf folder of an extension, found without importing it."""
    top, *rest = entry.module.split(".")
    spec = importlib.util.find_spec(top)
    for root in (spec.submodule_search_locations or []) if spec else []:
        folder = Path(root, *rest, "conf")
        if folder.is_dir():
            return folder
    raise ConfigError(
        f"the extension {entry.name} ({CONF} = {entry.module}) has no conf folder; install it again, or uninstall it"
    )
