"""A tokenizer out of the state that a checkpoint has of it."""

from __future__ import annotations

from collections.abc import Mapping

from aptlab.bounded import parse_json
from aptlab.data.tokenizers.base import Tokenizer
from aptlab.data.tokenizers.bytes import ByteTokenizer
from aptlab.data.tokenizers.json import JsonTokenizer
from aptlab.errors import CheckpointError


def restore_tokenizer(state: Mapping[str, str]) -> Tokenizer:
    """The tokenizer that wrote `state`, as found in a checkpoint. Raises CheckpointError for an unknown kind."""
    if state.get("kind") == "bytes":
        return ByteTokenizer()
    if state.get("kind") == "json" and isinstance(state.get("json"), str):
        files = read_files(state["files"]) if "files" in state else None
        return JsonTokenizer(state["json"], "the tokenizer in the checkpoint", eos=state.get("eos"), files=files)
    raise CheckpointError(
        f"the checkpoint holds a tokenizer of kind {state.get('kind')!r}; this aptlab knows bytes and json"
    )


def read_files(text: str) -> dict[str, str]:
    """The files beside a tokenizer.json by name, as a state has them; CheckpointError for what is none."""
    try:
        files = parse_json(text)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"the tokenizer's files in the checkpoint are no JSON: {error}") from None
    if not isinstance(files, dict) or not all(isinstance(content, str) for content in files.values()):
        raise CheckpointError("the tokenizer's files in the checkpoint are no texts by name; use another checkpoint")
    return files
