"""Hydra's part of a composition: the primary file and the chosen options, merged, nothing resolved. No torch."""

from __future__ import annotations

import copy
import functools
import hashlib
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aptlab.config.files import read_default_slots
from aptlab.config.search_path import OptionIndex, list_config_roots
from aptlab.errors import ConfigError, suggest_option

if TYPE_CHECKING:
    from aptlab.config.hydra_files import OptionFile

_LOCK = threading.Lock()
_REMEMBERED = 512  # compositions; a sweep over values has the same options in every job


@dataclass(frozen=True)
class _Request:
    """All that decides what Hydra answers: the words, and what the files hold."""

    command: str
    words: tuple[str, ...]
    home: str
    digest: bytes


@dataclass(frozen=True)
class _Answer:
    """What Hydra merged: values, the chosen option of each group, and the files that it read for them."""

    values: dict[str, Any]
    chosen: dict[str, Any]
    files: tuple[Path, ...]


def choose_options(command: str, choices: list[str], index: OptionIndex) -> tuple[dict[str, Any], dict[str, Any]]:
    """(values, chosen option of each group) of `conf/<command>.yaml` with these choices; values stay unresolved.

    The merge is the slow part of a command's start, so an answer is remembered for as long as no file of the index
    changes. A choice whose file is nothing but values is put into the answer without it, which is the same merge.
    Raises ConfigError where Hydra does.
    """
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    digest = digest_files(index)
    try:
        with _LOCK:
            return replace_plain(command, choices, index, digest) or merge_all(command, choices, index, digest)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise ConfigError(_describe_hydra_error(error, index)) from None


def merge_all(
    command: str, choices: list[str], index: OptionIndex, digest: bytes
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Hydra's merge of the primary file and all choices; raises what Hydra raises."""
    answer = _ask_hydra(_make_request(command, choices, index, digest))
    return copy.deepcopy(answer.values), dict(answer.chosen)


def replace_plain(
    command: str, choices: list[str], index: OptionIndex, digest: bytes
) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """The answer without the choices of plain files, and these put in; None where that might not be the same."""
    from hydra.errors import HydraException

    slots = read_default_slots(index.primaries[command].path)
    pairs = [pair for pair in map(_split_choice, choices) if _is_plain(*pair, index, digest)]
    plain = {group: option for group, option in pairs if _is_plain(group, slots.get(group), index, digest)}
    others = [choice for choice in choices if _split_choice(choice)[0] not in plain]
    named = [index.groups.get(group, {}).get(option) for group, option in map(_split_choice, others)]
    if not plain or not all(_read(option.path, digest).stays_inside for option in named if option):
        return None
    try:
        answer = _ask_hydra(_make_request(command, others, index, digest))
    except HydraException:  # an option that these choices replace may be what is missing
        return None
    if not _is_replaceable(answer, set(plain), index, digest):
        return None
    values, chosen = copy.deepcopy(answer.values), dict(answer.chosen)
    for group, option in plain.items():
        values[group] = _read(index.groups[group][option].path, digest).values
        chosen[group] = option
    return values, chosen


def _split_choice(choice: str) -> tuple[str, str]:
    group, _, option = choice.partition("=")
    return group, option


def _is_plain(group: str, option: str | None, index: OptionIndex, digest: bytes) -> bool:
    known = index.groups.get(group, {}).get(option or "")
    return known is not None and "/" not in group and _read(known.path, digest).is_plain


def _is_replaceable(answer: _Answer, groups: set[str], index: OptionIndex, digest: bytes) -> bool:
    """Whether each of these groups got one plain file, and nothing else was written where it stands."""
    by_path = {option.path: option for options in index.groups.values() for option in options.values()}
    found = [by_path[path] for path in answer.files if path in by_path]
    own = [_read(path, digest) for path in answer.files if path not in by_path]  # the primary file
    beside = groups.intersection(*[{key for file in own for key in file.values}])
    if beside or any(file.package for file in own) or not all(_read(one.path, digest).stays_inside for one in found):
        return False
    read = [(option.group.partition("/")[0], option) for option in found]
    for group in groups:
        files = [option for root, option in read if root == group]
        if [(file.group, file.name) for file in files] != [(group, answer.chosen.get(group))]:
            return False
        if not _read(files[0].path, digest).is_plain:
            return False
    return True


@functools.lru_cache(_REMEMBERED)
def _read(path: Path, digest: bytes) -> OptionFile:
    from aptlab.config.hydra_files import read_option_file

    return read_option_file(path)


def _make_request(command: str, choices: list[str], index: OptionIndex, digest: bytes) -> _Request:
    from aptlab.config.hydra_files import SCHEME

    # Hydra looks for the primary file in the first folder alone.
    home = index.primaries[command].place.path
    extra = [_quote(f"{SCHEME}://{place.path}") for place in list_config_roots() if place.path != home]
    search = [f"hydra.searchpath=[{','.join(extra)}]"] if extra else []
    swapped = sorted(word for word in choices if not word.startswith("+"))  # their order means nothing
    words = (*search, *swapped, *(word for word in choices if word.startswith("+")))
    return _Request(command, words, str(home), digest)


@functools.lru_cache(_REMEMBERED)
def _ask_hydra(request: _Request) -> _Answer:
    import hydra
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    from aptlab.config.hydra_files import read_quickly

    before = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with read_quickly() as files, hydra.initialize_config_dir(request.home, version_base="1.3"):
            words = [*_list_unused_parts(), *request.words]
            cfg = hydra.compose(request.command, words, return_hydra_config=True)
    finally:
        GlobalHydra.instance().hydra = before
    chosen = {key: value for key, value in cfg.hydra.runtime.choices.items() if not str(key).startswith("hydra/")}
    plain = OmegaConf.to_container(cfg, resolve=False)
    plain.pop("hydra")  # type: ignore[union-attr, call-arg]
    return _Answer(plain, chosen, tuple(dict.fromkeys(files)))  # type: ignore[arg-type]


@functools.cache
def _list_unused_parts() -> tuple[str, ...]:
    """Hydra's own groups (help, logging, launcher, …): to merge them takes time, and nobody reads them here."""
    from hydra.conf import HydraConf

    entries = [entry for entry in HydraConf().defaults if isinstance(entry, dict)]
    return tuple(f"~hydra/{group}" for entry in entries for group, option in entry.items() if option is not None)


def digest_files(index: OptionIndex) -> bytes:
    """What the files of the index hold; their times would miss a second change within one tick of the clock."""
    digest = hashlib.blake2b(digest_size=16)
    options = [*index.primaries.values(), *(option for group in index.groups.values() for option in group.values())]
    for option in options:
        digest.update(f"{option.path}\0".encode(errors="surrogateescape"))
        digest.update(hashlib.blake2b(option.path.read_bytes()).digest())
    return digest.digest()


def _quote(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _describe_hydra_error(error: Exception, index: OptionIndex) -> str:
    """One line, with a suggestion where an option named inside a file does not exist."""
    missing = getattr(error, "missing_cfg_file", None)
    if missing:
        group, _, name = str(missing).rpartition("/")
        if group not in index.groups:
            return f"{missing}: there is no config group {group}{suggest_option(group, index.groups)}"
        return f"{group}={name}: no such option{suggest_option(name, index.groups[group])}"
    noise = ("See https://", "Set the environment", "set env var")
    lines = [line.strip() for line in str(error).splitlines()]
    return " ".join(line for line in lines if line and not line.startswith(noise))
