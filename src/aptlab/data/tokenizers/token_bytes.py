"""UTF-8 bytes that each token of a tokenizer.json stands for, so that a loss can be told in bits per byte."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

Encode = Callable[[str], Sequence[int]]
Decode = Callable[[Iterable[int]], str]
BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")  # how a vocabulary with byte fallback spells one byte
ANCHOR = "a"  # an ordinary text that a token is decoded behind, for some decoders drop a space at the front


def count_decoded_bytes(numbers: Iterable[int], *, encode: Encode, decode: Decode) -> list[int]:
    """Bytes that each id adds to a decoded text. A part of a character counts as U+FFFD, which has three."""
    anchor = list(encode(ANCHOR))
    before = len(decode(anchor).encode())
    return [max(0, len(decode([*anchor, number]).encode()) - before) for number in numbers]


def count_token_bytes(text: str, size: int, *, encode: Encode, decode: Decode) -> np.ndarray:
    """Bytes by id, float64 [size], for the tokenizer.json `text`; ids without a token and special tokens have 0.

    With a byte-level decoder each sign of a token is one byte (Radford et al. 2019, section 2.2), so the count is exact
    also for a part of a character; so it is for `<0x0A>` and its like. Any other token has the bytes that it adds to
    the decoded text.
    """
    import numpy as np

    config = json.loads(text)
    added = {token["id"]: token for token in config.get("added_tokens") or []}
    tokens = {number: token for token, number in read_vocabulary(config.get("model") or {}) if number not in added}
    sizes = np.zeros(size)
    if "ByteLevel" in list_types(config.get("decoder")):
        known = {number: len(token) for number, token in tokens.items()}
    else:
        known = {number: 1 for number, token in tokens.items() if BYTE.fullmatch(token)}
        others = [number for number in tokens if number not in known]
        known |= zip(others, count_decoded_bytes(others, encode=encode, decode=decode), strict=True)
    known |= {number: 0 if token["special"] else len(token["content"].encode()) for number, token in added.items()}
    for number, count in known.items():
        sizes[number] = count
    return sizes


def read_vocabulary(model: dict[str, Any]) -> list[tuple[str, int]]:
    """Tokens and ids of a model, which are a table, or for Unigram a list of tokens with their scores."""
    vocab = model.get("vocab") or {}
    if isinstance(vocab, dict):
        return list(vocab.items())
    return [(token, number) for number, (token, _) in enumerate(vocab)]


def list_types(part: dict[str, Any] | None) -> Iterator[str]:
    """Types of a decoder, and of those that it is a sequence of."""
    for inner in (part or {}).get("decoders", []):
        yield from list_types(inner)
    if part:
        yield part["type"]
