"""Hydra's part of a composition: the primary file and the chosen options, merged, nothing resolved. No torch."""

from __future__ import annotations

import copy
import functools
import hashlib
import threading
from dataclasses import dataclass
from typing import Any

from aptlab.config.search_path import OptionIndex, list_config_roots
from aptlab.errors import ConfigError, suggest_option

_LOCK = threading.Lock()
_REMEMBERED = 512  # compositions; a sweep over values has the same options in every job


@dataclass(frozen=True)
class _Request:
    """All that decides what Hydra answers: the words, and what the files hold."""

    command: str
    words: tuple[str, ...]
    home: str
    digest: bytes


def choose_options(command: str, choices: list[str], index: OptionIndex) -> tuple[dict[str, Any], dict[str, Any]]:
    """(values, chosen option of each group) of `conf/<command>.yaml` with these choices; values stay unresolved.

    The merge is the slow part of a command's start, so an answer is remembered for as long as no file of the index
    changes. Raises ConfigError where Hydra does.
    """
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from aptlab.config.hydra_files import SCHEME

    # Hydra looks for the primary file in the first folder alone.
    home = index.primaries[command].place.path
    extra = [_quote(f"{SCHEME}://{place.path}") for place in list_config_roots() if place.path != home]
    search = [f"hydra.searchpath=[{','.join(extra)}]"] if extra else []
    swapped = sorted(word for word in choices if not word.startswith("+"))  # their order means nothing
    words = (*search, *swapped, *(word for word in choices if word.startswith("+")))
    request = _Request(command, words, str(home), _digest_files(index))
    try:
        with _LOCK:
            return copy.deepcopy(_ask_hydra(request))
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise ConfigError(_describe_hydra_error(error, index)) from None


@functools.lru_cache(_REMEMBERED)
def _ask_hydra(request: _Request) -> tuple[dict[str, Any], dict[str, Any]]:
    import hydra
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    from aptlab.config.hydra_files import read_quickly

    before = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with read_quickly(), hydra.initialize_config_dir(request.home, version_base="1.3"):
            words = [*_list_unused_parts(), *request.words]
            cfg = hydra.compose(request.command, words, return_hydra_config=True)
    finally:
        GlobalHydra.instance().hydra = before
    chosen = {key: value for key, value in cfg.hydra.runtime.choices.items() if not str(key).startswith("hydra/")}
    plain = OmegaConf.to_container(cfg, resolve=False)
    plain.pop("hydra")  # type: ignore[union-attr, call-arg]
    return plain, chosen  # type: ignore[return-value]


@functools.cache
def _list_unused_parts() -> tuple[str, ...]:
    """Hydra's own groups (help, logging, launcher, …): to merge them takes time, and nobody reads them here."""
    from hydra.conf import HydraConf

    entries = [entry for entry in HydraConf().defaults if isinstance(entry, dict)]
    return tuple(f"~hydra/{group}" for entry in entries for group, option in entry.items() if option is not None)


def _digest_files(index: OptionIndex) -> bytes:
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
