r"""Text that a configuration holds as it is: `\${` stands for `${`, as OmegaConf reads it.

What comes out of a file (a token of a tokenizer, a name of a folder, the configuration of a checkpoint) is data. It is
escaped before it enters a configuration and as long as it is stored, so that nothing in it is ever resolved, and comes
back as it was.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from aptlab.config.node_path import join_keys
from aptlab.errors import ConfigError

# Backslashes in front of an opening count: two of them are one, and an odd one makes text of what follows.
OPENING = re.compile(r"(\\*)\$\{")
# `${rope.base}` and `${oc.select:rope.base,null}` read the configuration alone; all else may read the environment, the
# clock or a file, or hide what it reads.
PURE = re.compile(
    r"\$\{\s*(?:oc\.(?:select|dict\.keys|dict\.values)\s*:\s*)?[A-Za-z_][\w.\[\]]*(?:\s*,\s*[\w.-]+)?\s*\}"
)


def escape_text(text: str) -> str:
    r"""The text as a configuration holds it.

    >>> escape_text("${x}")
    '\\${x}'
    """
    return OPENING.sub(lambda found: found[1] * 2 + "\\${", text)


def unescape_text(text: str) -> str:
    """The text that an escaped one stands for."""
    return OPENING.sub(lambda found: found[1][: len(found[1]) // 2] + "${", text)


def escape_values(value: Any) -> Any:
    """A copy of plain containers with every text escaped."""
    return _map_texts(value, escape_text)


def unescape_values(value: Any) -> Any:
    """A copy of plain containers with the texts that escaped ones stand for."""
    return _map_texts(value, unescape_text)


def _map_texts(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, dict):
        return {key: _map_texts(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_map_texts(item, change) for item in value]
    return change(value) if isinstance(value, str) and "${" in value else value


def find_interpolations(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """(key, text) of every text with an interpolation that would be resolved."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from find_interpolations(item, join_keys(path, str(key)))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from find_interpolations(item, join_keys(path, str(index)))
    elif isinstance(value, str) and any(len(found[1]) % 2 == 0 for found in OPENING.finditer(value)):
        yield path, value


def refuse_interpolations(value: Any, path: str = "") -> None:
    """ConfigError where values out of a file hold something that would be resolved."""
    for key, text in find_interpolations(value, path):
        raise ConfigError(
            f"{key or 'node'}: an interpolation ${{...}} is left in {text!r}, and nothing of a file is filled in; "
            "resolve the configuration first, or write \\${ for the text itself"
        )


def is_pure(text: str) -> bool:
    """Whether every interpolation of a text reads the configuration alone, and so no environment, clock or file."""
    return all(PURE.match(text, found.end() - 2) for found in OPENING.finditer(text) if len(found[1]) % 2 == 0)
