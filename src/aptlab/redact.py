"""Secrets taken out of anything that is written down: configs, overrides, logs, command lines.

A value is hidden for its name (`api_key`, `password`, ...), for its shape (a key of a well-known
service) or because it is the value of a secret that was seen before: in the environment under such a
name, or in a config that went through `redact`.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

HIDDEN = "***"

_WORDS = {"apikey", "password", "passwd", "passphrase", "secret", "secrets", "credential", "credentials"}
_WORDS |= {"authorization"}
_PLAIN_TOKENS = {"per", "pad", "bos", "eos", "unk", "mask", "sep", "cls", "special", "stop", "start", "end"}
_PLAIN_TOKENS |= {"new", "next", "last", "first", "image", "each"}
_PLAIN_KEYS = {"text", "sort", "group", "primary", "foreign", "public", "metric", "column", "input", "target"}
_SHAPES = (
    r"\bsk-[A-Za-z0-9_\-]{16,}",
    r"\bhf_[A-Za-z0-9]{16,}",
    r"\bgh[pousr]_[A-Za-z0-9]{16,}",
    r"\bgithub_pat_\w{16,}",
    r"\bglpat-[\w\-]{16,}",
    r"\bwandb_v\d+_\w{16,}",
    r"\blocal-[0-9a-f]{40}\b",
    r"\bAKIA[0-9A-Z]{16}\b",
    r"\bAIza[\w\-]{30,}",
    r"\bxox[abprs]-[\w\-]{10,}",
    r"\beyJ[\w\-]{8,}\.[\w\-]{8,}\.[\w\-]*",
    r"(?<=[Bb]earer )[\w\-.~+/]{8,}=*",
    r"(?<=[Bb]asic )[\w+/]{12,}=*",
    r"(?<=://)[^/\s:@]*:[^/\s@]+(?=@)",
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
)
_SHAPE = re.compile("|".join(_SHAPES))
_NAME = r"[\w.\-/@+]+"
_VALUE = r"\"[^\"]*\"|'[^']*'|[^\s,;&{}\[\]()\"']+"
_ASSIGNED = re.compile(
    rf"(?P<name>{_NAME})(?P<sign>[\"']\s*:\s*|\s*=\s*|:(?=[^\s/]))(?P<value>{_VALUE})"
    rf"|^(?P<indent>[ \t-]*)(?P<yaml_name>{_NAME})(?P<yaml_sign>:[ \t]+)(?P<yaml_value>\S+)[ \t]*$"
    rf"|(?P<said>{_NAME})(?P<colon>:[ \t]+)(?P<said_value>(?=\S*\d|\S{{20}})(?:{_VALUE}))"
    rf"|--(?P<flag>{_NAME})(?P<space>[ \t]+)(?P<flag_value>{_VALUE})",
    re.MULTILINE,
)
_SHORTEST = 8  # a shorter value (a `1`, a `true`) would hide parts of ordinary words; as a word of its own it is told
# What no ordinary word or number looks like: letters with digits or signs in between, capitals inside a word.
_DISTINCT = re.compile(r"(?=.*[A-Za-z])(?=.*\d)\S{4,}|[A-Za-z]+[^\w\s.\-/=,:][\S]{2,}|[a-z]+[A-Z]\S{2,}")
_seen: set[str] = set()


@functools.lru_cache(4096)  # asked of every environment variable for every text
def is_secret_name(name: str) -> bool:
    """Whether a value under this key, option or environment variable must not be written down.

    >>> [is_secret_name(n) for n in ("logger.api_key", "HF_TOKEN", "tokens", "eos_token", "tokenizer")]
    [True, True, False, False, False]
    """
    last = re.split(r"[./@]", str(name).strip("+~ "))[-1]
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", last)
    words = [word for word in re.split(r"[^a-z0-9]+", spaced.lower()) if word]
    if not words:
        return False
    before = words[-2] if len(words) > 1 else ""
    if words[-1] == "token":
        return before not in _PLAIN_TOKENS
    if words[-1] == "key":
        return bool(before) and before not in _PLAIN_KEYS
    return not _WORDS.isdisjoint(words) or any(word.endswith("apikey") for word in words)


def remember_secret(value: object) -> None:
    """Hide this text from now on wherever it turns up in this process."""
    if isinstance(value, str) and _is_told(value):
        _seen.add(value)


def _is_told(secret: str) -> bool:
    """Whether hiding a secret wherever it stands hides nothing else: it is long, or like no ordinary word."""
    return len(secret) >= _SHORTEST or (_DISTINCT.fullmatch(secret) is not None and not _is_number(secret))


def redact_value(value: Any) -> Any:
    """A copy with secrets hidden, of plain containers; numbers, booleans and None stay as they are.

    What stands under a secret-looking name is replaced by `***` and remembered.
    """
    return _redact(value, _from_environment())


def redact_text(text: str) -> str:
    """The text with known secrets, keys of well-known shapes and `password=...` pairs hidden."""
    return _redact_text(text, _from_environment())


def _redact(value: Any, environment: set[str]) -> Any:
    """As `redact_value`; the environment is read once, for it holds more names than most values have texts."""
    if isinstance(value, Mapping):
        return {
            _redact(key, environment): _hide(item) if is_secret_name(key) else _redact(item, environment)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [_redact(item, environment) for item in value]
    return _redact_text(value, environment) if isinstance(value, str) else value


def _redact_text(text: str, environment: set[str]) -> str:
    for secret in sorted(_seen | environment, key=len, reverse=True):
        if secret not in text:
            continue
        if len(secret) >= _SHORTEST:
            text = text.replace(secret, HIDDEN)
        else:  # as a word of its own
            text = re.sub(rf"(?<![\w\-]){re.escape(secret)}(?![\w\-])", HIDDEN, text)
    return _ASSIGNED.sub(_pair, _SHAPE.sub(HIDDEN, text))


def redact_overrides(overrides: Iterable[str]) -> list[str]:
    """Command line overrides `key=value` with secret values hidden and remembered."""
    shown = []
    for override in overrides:
        name, sign, value = str(override).partition("=")
        if sign and is_secret_name(name) and value not in ("null", ""):
            remember_secret(value.strip("'\""))
            shown.append(f"{name}={HIDDEN}")
        else:
            shown.append(redact_text(str(override)))
    return shown


def _hide(value: Any) -> Any:
    """`***` for anything but null, true, false and empty; remembers the strings inside."""
    if value is None or isinstance(value, bool) or value in ("", [], {}):
        return value
    _remember_all(value)
    return HIDDEN


def _remember_all(value: Any) -> None:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple | set | frozenset):
        for item in value:
            _remember_all(item)
    else:
        remember_secret(value)


def _from_environment() -> set[str]:
    """Values of environment variables whose name looks secret."""
    return {value for name, value in os.environ.items() if is_secret_name(name) and _is_told(value)}


def _pair(match: re.Match[str]) -> str:
    """One `name=value` found in running text, hidden if its name asks for it."""
    name = next(match[group] for group in ("name", "yaml_name", "said", "flag") if match[group])
    value = next(match[f"{group}value"] for group in ("", "yaml_", "said_", "flag_") if match[f"{group}value"])
    bare = value.strip("'\"")
    if not is_secret_name(name) or bare in ("null", "None", "", HIDDEN) or (_counts(name) and _is_number(bare)):
        return match[0]
    return match[0][: -len(value)] + HIDDEN if match[0].endswith(value) else match[0].replace(value, HIDDEN)


def _counts(name: str) -> bool:
    """Whether a name may also stand before a number that is no secret: `loss per token=2.3`."""
    return re.split(r"[./@]", name.strip("+~ -"))[-1].lower() == "token"


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[+-]?\d*\.?\d*(?:[eE][+-]?\d+)?", text) is not None
