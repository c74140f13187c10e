"""Keys that say where things go on this machine or in the network, which no received file decides.

A checkpoint brings the experiment: parts, numbers, and where its text is read from. Where files are written, what is
started and where numbers are sent is said on the command line and in the user's own options.
"""

from __future__ import annotations

from typing import Any

# Words in the last part of a key. `include` names files that are run (lm_eval's tasks hold code).
SENT = {"cache", "out", "output", "outputs", "url", "uri", "host", "hostname", "endpoint", "address", "addr", "port"}
SENT |= {"bucket", "project", "entity", "server", "proxy", "include", "destination", "dest"}
WRITTEN = {"dir", "dirpath", "folder", "root", "path", "paths", "file", "filename"}
# Groups whose keys say where something is read from: all of them, and all but those that say where it is sent.
READ, READ_AND_WRITTEN = ("source", "tokenizer"), ("data",)

# What is kept of the groups that act on the machine: the option, where its file is here, and plain values of these.
KEPT = {
    "device": ("devices", "nodes", "accelerator"),
    "launcher": (),
    "logger": ("mode",),  # none, auto, online, offline: a choice without an address
    "paths": (),
    "sweep": (),
}
ROOT_KEYS = ("run_dir",)


def says_where(key: str) -> bool:
    """Whether a dotted key says where something is written, sent or started.

    >>> [says_where(key) for key in ("logger.base_url", "data.cache", "source.path", "rope.base", "device.devices")]
    [True, True, False, False, False]
    """
    group, _, inner = key.partition(".")
    if group in READ or (inner.startswith(READ) and group in READ_AND_WRITTEN):
        return False
    if group in KEPT and inner:
        return inner not in KEPT[group]
    words = set(key.rpartition(".")[2].lower().split("_"))
    return key in ROOT_KEYS or not words.isdisjoint(SENT if group in READ_AND_WRITTEN else SENT | WRITTEN)


def finds_destination(key: str, value: Any) -> bool:
    """Whether a key, or one inside its value, says where something goes, or names a class that acts on the machine."""
    group = key.partition(".")[0]
    named = key.rpartition(".")[2] == "_target_" or (isinstance(value, dict) and "_target_" in value)
    if says_where(key) or (named and (group == "trainer" or group in KEPT)):
        return True
    return isinstance(value, dict) and any(finds_destination(f"{key}.{name}", item) for name, item in value.items())


def drop_destinations(value: Any, path: str) -> tuple[Any, list[str]]:
    """A copy of a node out of a file without the keys that say where something goes, and those that had a value."""
    if isinstance(value, list | tuple):
        items = [drop_destinations(item, f"{path}.{index}") for index, item in enumerate(value)]
        return [item for item, _ in items], [key for _, keys in items for key in keys]
    if not isinstance(value, dict):
        return value, []
    kept, gone = {}, []
    for name, item in value.items():
        key = f"{path}.{name}"
        if name != "_target_" and says_where(key):
            gone += [key] * (item is not None)
        else:
            kept[name], inner = drop_destinations(item, key)
            gone += inner
    return kept, gone
