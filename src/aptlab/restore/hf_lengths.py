"""The lengths that an imported folder promised, kept until an export writes them again.

`max_position_embeddings` and the tokenizer's `model_max_length` are no consequence of the rule: Llama 3.1 has 131,072
and a rule that reaches 65,536. They stand in the checkpoint as "imported", with the rule that they were true of, and
runs that begin from it carry them on.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from aptlab.data.tokenizers.hf_files import parse_object, read_text

if TYPE_CHECKING:
    from aptlab.models.hf import DecoderDescription
    from aptlab.restore.load import LoadedModel

KEY = "imported"  # in the checkpoint's "aptlab" entry
NO_LIMIT = int(1e30)  # what transformers writes for a tokenizer without one


class KeptLengths(NamedTuple):
    """What an export writes as it was, None where it follows from the model; `before` is what the import had."""

    longest: int | None
    tokenizer: int | None
    before: tuple[int, int] | None


def read_folder_lengths(folder: Path, *, longest: int, rope: dict[str, Any]) -> dict[str, Any]:
    """The entry of a checkpoint: both lengths of a folder, and the node of the rule that they belong to."""
    path, limit = folder / "tokenizer_config.json", None
    if path.is_file():
        limit = parse_object(read_text(path), path.name).get("model_max_length")
    number = isinstance(limit, int | float) and not isinstance(limit, bool) and limit >= 1
    return {
        "max_position_embeddings": longest,
        "model_max_length": int(min(limit, NO_LIMIT)) if number and limit is not None else NO_LIMIT,
        "rope": rope,
    }


def find_kept_lengths(loaded: LoadedModel) -> KeptLengths:
    """The lengths of the import, unless the run has another rule or read longer texts than they allow."""
    entry = loaded.meta.get(KEY)
    if not entry:
        return KeptLengths(None, None, None)
    before = (int(entry["max_position_embeddings"]), int(entry["model_max_length"]))
    rules = (loaded.net.rope.for_layer(layer).rule for layer in range(loaded.net.shape.depth))
    reach = max([before[0], *(rule.stretched_length(1) for rule in rules if rule is not None)])
    if entry["rope"] != loaded.config.get("rope") or loaded.context > reach:
        return KeptLengths(None, None, before)
    return KeptLengths(*before, before)


def describe_kept_lengths(kept: KeptLengths, described: DecoderDescription) -> list[str]:
    """A line where the export promises other lengths than the import did."""
    now = described.config["max_position_embeddings"], described.reach
    if kept.before is None or kept.longest is not None or kept.before == now:
        return []
    limit = "none" if kept.before[1] >= NO_LIMIT else kept.before[1]
    return [
        f"max_position_embeddings={now[0]} and the tokenizer's model_max_length={now[1]} follow from this run's rope "
        f"and context; the imported model had {kept.before[0]} and {limit}"
    ]
