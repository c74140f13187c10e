"""The tokens at which texts begin and end, on their way between a checkpoint and a Hugging Face folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from aptlab.data.tokenizers import JsonTokenizer, Tokenizer, restore_tokenizer


def collect_token_ids(tokenizer: Tokenizer) -> dict[str, Any]:
    """The ids that config.json names; an imported model keeps those it had."""
    from aptlab.models.hf import read_kept_ids

    stops, kept = list(tokenizer.stops), read_kept_ids(tokenizer.state())
    ids = {"bos_token_id": tokenizer.bos, **kept}
    if ids.get("eos_token_id") is None:
        ids["eos_token_id"] = stops if len(stops) > 1 else tokenizer.eos
    return ids


def drop_own_files(tokenizer: Tokenizer) -> dict[str, str]:
    """The state of an imported tokenizer, without the files that we wrote for one of ours, which has none."""
    from aptlab.models.hf import build_tokenizer_files

    state = tokenizer.state()
    own = {name: state[name] for name in ("kind", "json", "eos")}
    there = json.loads(state["files"]).get("tokenizer_config.json")
    if there is None or tokenizer.prefix:
        return state
    longest = json.loads(there).get("model_max_length")
    return own if there == build_tokenizer_files(own, longest=longest)["tokenizer_config.json"] else state


def describe_special_tokens(state: Mapping[str, str]) -> list[str]:
    """Lines for the user on an imported tokenizer: where texts begin and end, and what differs from its files."""
    tokenizer = restore_tokenizer(state)
    if not isinstance(tokenizer, JsonTokenizer):
        return []
    first = "texts begin with " + (tokenizer.name_tokens(tokenizer.prefix) or "no special token")
    chat = "a chat template is kept" if tokenizer.chat_template else "there is no chat template"
    return [f"{first} and end at {tokenizer.name_tokens(tokenizer.stops)}; {chat}", *tokenizer.notes]
