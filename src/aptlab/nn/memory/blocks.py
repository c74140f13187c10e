"""Memories that are about blocks of a document: where a pass crosses the edge of one, row by row.

Legend: B rows, T tokens of a piece, S keys. A block is `size` tokens of a document, counted from its first token.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from aptlab.nn.segments import DocumentCount, DocumentPlaces, count_documents


class BlockPlaces(NamedTuple):
    """Which block each token of a piece is in. A piece is no longer than a block, so it is one of three kinds.

    open    bool [B, T], real tokens of the block that the row was in before the piece
    later   bool [B, T], real tokens of the next block of that document
    fresh   bool [B, T], real tokens of documents that begin in the piece, in their first block
    last    bool [B, T], real tokens of the document and block that the piece ends in
    goes_on bool [B], whether the piece ends in the document that it began in
    crossed bool [B], whether it went on there into the next block
    """

    places: DocumentPlaces
    open: Tensor
    later: Tensor
    fresh: Tensor
    last: Tensor
    goes_on: Tensor
    crossed: Tensor


def find_blocks(names_BT: Tensor, before: DocumentCount, size: int) -> BlockPlaces:
    """The blocks of a piece of at most `size` tokens; a full block is left at the next token of its document."""
    assert names_BT.shape[1] <= size
    places = count_documents(names_BT, before)
    begin_B1 = ((before.seen - 1).clamp_min(0) // size * size).unsqueeze(1)
    old_BT, beyond_BT = places.number == 0, places.place >= begin_B1 + size
    last_BT = places.real & (places.number == places.number[:, -1:])
    later_BT = places.real & old_BT & beyond_BT
    crossed_B, goes_on_B = later_BT.any(1), old_BT[:, -1]
    return BlockPlaces(
        places,
        places.real & old_BT & ~beyond_BT,
        later_BT,
        places.real & ~old_BT,
        last_BT & (later_BT | ~(crossed_B & goes_on_B).unsqueeze(1)),
        goes_on_B,
        crossed_B,
    )


def choose_rows(mask_B: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    """Rows of `yes` where the mask is set, of `no` elsewhere."""
    return torch.where(mask_B.view(-1, *[1] * (yes.ndim - 1)), yes, no)
