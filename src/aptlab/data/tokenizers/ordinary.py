"""A tokenizer.json whose special tokens no text can reach, whatever its file says of them.

The `tokenizers` library splits a text at added tokens, and is told to leave out those that are marked special. Two
ways are left: an added token that is not marked, and a model that has the token in its vocabulary and finds it as a
word or a piece (Unigram, WordLevel, WordPiece, BPE with `ignore_merges`). Here the tokens get names that no text has.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def can_be_typed(fast: Any, protected: Mapping[int, str]) -> bool:
    """Whether a text can give one of the tokens: an added one that is not special, or one that the model finds.

    A model finds a token in a longer word only if it finds it in the word that the token is: merges inside it are the
    same, and so is the best path through it.
    """
    added = fast.get_added_tokens_decoder()
    if any(number in added and not added[number].special for number in protected):
        return True
    pieces = [piece for text in protected.values() for piece in fast.model.tokenize(text)]
    return any(piece.id in protected for piece in pieces)


def hide_tokens(text: str, protected: Mapping[int, str]) -> str:
    """The tokenizer.json `text` with stand-ins for the tokens `protected`, id -> text; all ids stay what they are."""
    tree = json.loads(text)
    stand_ins = {word: f"\uffff{number}\uffff" for number, word in protected.items()}  # U+FFFF is no character
    for entry in tree.get("added_tokens") or []:
        if entry["content"] in stand_ins:
            entry |= {"content": stand_ins[entry["content"]], "special": True}
    model = tree["model"]
    vocab = model["vocab"]
    if isinstance(vocab, list):
        model["vocab"] = [[stand_ins.get(piece, piece), score] for piece, score in vocab]
    else:
        model["vocab"] = {stand_ins.get(word, word): number for word, number in vocab.items()}
    if "merges" in model:
        model["merges"] = [pair for pair in map(split_merge, model["merges"]) if not uses_any(pair, stand_ins)]
    if model.get("unk_token") in stand_ins and isinstance(model.get("merges"), list):
        model["unk_token"] = None
    return json.dumps(tree | {"post_processor": None}, ensure_ascii=False)


def split_merge(merge: str | list[str]) -> list[str]:
    """The two parts of a merge, which older files write as one text."""
    return merge.split(" ") if isinstance(merge, str) else merge


def uses_any(pair: list[str], stand_ins: Mapping[str, str]) -> bool:
    """Whether a merge makes or takes one of the tokens."""
    return any(word in stand_ins for word in (*pair, "".join(pair)))
