"""The data of a checkpoint: built again, with another source or other rows, and read as earlier versions wrote it.

Until the group `source` came, a configuration had its source inside `data`, a module of its own for mixed rows, and
the options data=stdlib, data=text and data=hub. No torch is loaded until data are built.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from aptlab.config import build, expand_shortcuts, translate_overrides
from aptlab.config.destinations import drop_destinations

log = logging.getLogger("aptlab")

Node = dict[str, Any]
PAIRS = "aptlab.data.pairs.PairData"  # never had rows of another form
MODULE, PACKED, MIXED = "aptlab.data.module.TextData", "aptlab.data.rows.Packed", "aptlab.data.rows.Mixed"
OLD_OPTIONS = ("stdlib", "text", "hub")


def build_data(
    config: Mapping[str, Any], *, tokenizer: Any, data: Node | None = None, source: Node | None = None
) -> Any:
    """The data module of a trained configuration, of today's form, with its own tokenizer.

    `data` and `source` are nodes that take the place of the configuration's; a node `data` without a source takes
    `source`, else the configuration's.
    """
    if data is None:
        kept, gone = drop_destinations(config["data"], "data")
        data = dict(kept)
        for key in gone:
            log.warning("%s is left out, for a checkpoint does not say where things go", key)
    node = {**data, "tokenizer": None}
    if source or "source" in node or "source" in config["data"]:  # data of several tasks have none
        node["source"] = source or node.get("source") or config["data"].get("source")
    return build(node, "data", tokenizer=tokenizer)


def modernize_config(config: Mapping[str, Any]) -> Node:
    """A resolved configuration of a checkpoint in the form of today; one of that form is returned as it is."""
    data = config.get("data")
    if not isinstance(data, Mapping) or "rows" in data or "source" not in data or data.get("_target_") == PAIRS:
        return dict(config)
    return {**config, "source": data["source"], "data": modernize_data_node(data)}


def modernize_data_node(node: Mapping[str, Any]) -> Node:
    """The node `data` of an earlier version: `mix` and `document_mask` are rows now."""
    found = {key: value for key, value in node.items() if key not in ("mix", "document_mask")}
    if "mix" in node:
        rows = {**node["mix"], "_target_": MIXED}
    else:
        rows = {"_target_": PACKED, "document_mask": node.get("document_mask", False)}
    return {**found, "_target_": MODULE, "rows": rows}


def modernize_overrides(overrides: Iterable[str], config: Mapping[str, Any]) -> list[str]:
    """The overrides of a checkpoint in the words of today; `config` is its configuration as written."""
    texts = list(overrides)
    return texts if "source" in config else expand_shortcuts(translate_overrides(texts))


def modernize_choices(choices: Mapping[str, Any]) -> Node:
    """The chosen options: an old option of `data` was a source with packed rows."""
    if "source" in choices or "data" not in choices:
        return dict(choices)
    option = choices["data"]
    if option in OLD_OPTIONS:
        return {**choices, "source": option, "data": "packed"}
    return {**choices, "source": "stdlib"}
