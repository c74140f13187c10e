"""Secrets that a configuration takes out of the environment, hidden where they would be written down."""

from __future__ import annotations

import functools
import os
import re
from typing import Any

from aptlab.config.node_path import SLOT, SLOTS, get_child
from aptlab.redact import HIDDEN, is_secret_name

ENVIRONMENT = re.compile(r"oc\.env\s*:\s*([A-Za-z_]\w*)")


def hide_environment(values: Any, raw: Any) -> Any:
    """Resolved values without the secrets of the environment that the interpolations in them named, however short.

    values, raw  the same configuration, resolved and as written
    """
    named = {os.environ.get(name, "") for name in set(ENVIRONMENT.findall(str(raw))) if is_secret_name(name)}
    secrets = sorted(named - {""}, key=len, reverse=True)
    return _hide_secrets(values, raw, raw, secrets) if secrets else values


def _hide_secrets(value: Any, raw: Any, tree: Any, secrets: list[str]) -> Any:
    """Only what an interpolation filled in is looked at: a short secret is part of many words."""
    for _ in range(SLOTS):  # `${source}` stands for the node that is written there
        slot = SLOT.fullmatch(raw) if isinstance(raw, str) else None
        if slot is None:
            break
        raw = functools.reduce(get_child, slot[1].split("."), tree)
    if isinstance(value, dict):
        return {key: _hide_secrets(item, get_child(raw, key), tree, secrets) for key, item in value.items()}
    if isinstance(value, list):
        return [_hide_secrets(item, get_child(raw, str(place)), tree, secrets) for place, item in enumerate(value)]
    if not (isinstance(raw, str) and "${" in raw) or value is None or isinstance(value, bool):
        return value
    text = str(value)
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    return value if text == str(value) else text
