"""Weights and a tokenizer that they were not trained with: what their ids mean, and rows moved to the new ids.

Legend: V ids of a vocabulary, C dim.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from aptlab.bounded import TABLE, parse_json
from aptlab.data.tokenizers import Tokenizer, restore_tokenizer
from aptlab.data.tokenizers.base import BYTE_VALUES
from aptlab.errors import CheckpointError

ROWS = ("net.embed.weight", "net.head.weight")  # one row for every id
END = "end of text"
Names = dict[int, str | bytes]


def name_tokens(state: Mapping[str, str]) -> Names:
    """What every id of a tokenizer stands for, so that equal names are equal pieces of text.

    state  of the tokenizer, as a checkpoint has it

    Bytes of byte-level tokens are bytes here, so that those of tokenizer=bytes are the same ones; the id that ends a
    document has one name everywhere. Empty for a kind that is not known.
    """
    if state.get("kind") == "bytes":
        return {value: bytes([value]) for value in range(BYTE_VALUES)} | {BYTE_VALUES: END}
    if state.get("kind") != "json":
        return {}
    content = parse_json(state["json"], TABLE)
    vocab = content["model"].get("vocab") or {}
    # A Unigram model lists its tokens with their scores.
    pairs = (
        [(i, pair[0]) for i, pair in enumerate(vocab)] if isinstance(vocab, list) else [(vocab[t], t) for t in vocab]
    )
    table = make_byte_table() if "ByteLevel" in json.dumps(content.get("decoder")) else {}
    names: Names = {number: read_byte_level(name, table) for number, name in pairs}
    names |= {token["id"]: token["content"] for token in content.get("added_tokens") or []}
    end = (state.get("eos"), str(state.get("eos")).encode())
    return {number: END if name in end else name for number, name in names.items()}


def read_byte_level(name: str, table: Mapping[str, int]) -> str | bytes:
    """The bytes that a byte-level token is written for, or the token where it is of another kind."""
    return bytes(table[char] for char in name) if table and all(char in table for char in name) else name


def make_byte_table() -> dict[str, int]:
    """The characters that byte-level BPE writes bytes as (Radford et al. 2019, GPT-2): printable ones as themselves,
    the others, in order, from U+0100 on.
    """
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [value for value in range(BYTE_VALUES) if value not in shown]
    return {chr(value): value for value in shown} | {chr(256 + place): value for place, value in enumerate(hidden)}


def check_same_ids(old: Mapping[str, str], new: Mapping[str, str]) -> None:
    """CheckpointError where ids that weights know mean other text to a tokenizer; ids that they lack may be new.

    old, new  states of the tokenizers that the weights were trained with and that are asked for
    """
    if dict(old) == dict(new):
        return
    before, now = name_tokens(old), name_tokens(new)
    common = sorted(before.keys() & now.keys())
    other = [number for number in common if before[number] != now[number]]
    if common and not other:
        return
    first = f", as {other[0]}: {before[other[0]]!r} -> {now[other[0]]!r}" if other else ""
    raise CheckpointError(
        f"tokenizer: {len(other):,} of {len(common):,} ids mean other text than the weights were trained with{first}; "
        "keep the tokenizer of the checkpoint, or move the rows of the embedding to the new ids with load=remap"
    )


def remap_vocabulary(
    weights: Mapping[str, Tensor], fresh: Mapping[str, Tensor], old: Mapping[str, str], new: Tokenizer
) -> tuple[dict[str, Tensor], str]:
    """Weights whose rows stand at the ids of another tokenizer, and a line that says how many were found.

    weights  of the checkpoint
    fresh    of the new model, which gives the number of rows; rows without a token keep theirs
    old      state of the tokenizer that the weights were trained with
    new      the tokenizer that is asked for

    A token of both has its row; a new one has the mean of the rows of its text's old tokens (Gee et al. 2022, "Fast
    vocabulary transfer for language model compression", EMNLP industry track, section 2). CheckpointError for weights
    without such rows.
    """
    if ROWS[0] not in weights:
        raise CheckpointError(f"load=remap: the weights have no {ROWS[0]}, whose rows are moved; use load=weights")
    reader = restore_tokenizer(old)
    before, now = name_tokens(old), name_tokens(new.state())
    places: dict[str | bytes, int] = {name: number for number, name in before.items()}
    sources = [find_sources(now.get(number), places, reader) for number in range(new.vocab_size)]
    moved = dict(weights)
    for name in ROWS:
        if name in weights and name in fresh:
            moved[name] = move_rows(weights[name], fresh[name], sources)
    kept = sum(now.get(number) in places for number in range(new.vocab_size))
    line = (
        f"  tokenizer: {kept:,} of {new.vocab_size:,} rows moved to their new ids, the others are means of their parts"
    )
    return moved, line


def find_sources(name: str | bytes | None, places: Mapping[str | bytes, int], reader: Tokenizer) -> Sequence[int]:
    """The old ids whose rows make the row of a token: its own, or those of its text; none for what has no text."""
    if name is None or name in places:
        return [] if name is None else [places[name]]
    text = name.decode("utf-8", errors="ignore") if isinstance(name, bytes) else name.replace("\u2581", " ")
    return reader.encode(text)


def move_rows(old_VC: Tensor, fresh_VC: Tensor, sources: Sequence[Sequence[int]]) -> Tensor:
    """One row per new id: the mean of the old rows named for it, or the fresh one."""
    rows_VC = fresh_VC.clone()
    for number, found in enumerate(sources):
        if found:
            rows_VC[number] = old_VC[torch.tensor(found)].float().mean(0).to(rows_VC.dtype)
    return rows_VC
