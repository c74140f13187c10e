"""A tokenizer out of the state that a checkpoint has of it."""

from __future__ import annotations

import json
from collections.abc import Mapping

from aptlab.data.tokenizers.base import Tokenizer
from aptlab.data.tokenizers.bytes import ByteTokenizer
from aptlab.data.tokenizers.json import JsonTokenizer
from aptlab.errors import CheckpointError


def restore_tokenizer(state: Mapping[str, str]) -> Tokenizer:
    """The tokenizer that wrote `state`, as found in a checkpoint. Raises CheckpointError for an unknown kind."""
    if state.get("kind") == "bytes":
        return ByteTokenizer()
    if state.get("kind") == "json" and isinstance(state.get("json"), str):
        files = json.loads(state["files"]) if "files" in state else None
        return JsonTokenizer(state["json"], "the tokenizer in the checkpoint", eos=state.get("eos"), files=files)
    raise CheckpointError(
        f"the checkpoint holds a tokenizer of kind {state.get('kind')!r}; this aptlab knows bytes and json"
    )
