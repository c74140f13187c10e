"""The last keys and values of a row, and which of them a query sees.

Legend: B rows, T new tokens, R places of the ring, S = R + T keys, K key/value heads, H query heads, D head dim.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from aptlab.nn.attention.dispatch import attend_sdpa
from aptlab.nn.attention.spec import AttentionSpec, Heads
from aptlab.nn.context import ForwardContext
from aptlab.nn.segments import DocumentCount, DocumentPlaces

DIMS = (2, 2, 1)  # of the tokens in `LocalKeys`


class KeyView(NamedTuple):
    """The documents of all keys: those of the ring, then the new ones; each [B, S].

    number  of the document, 0 = the one that the row was in before this pass
    place   tokens of the document before this one
    real    false for padding and for places of the ring that hold nothing of that document
    """

    number: Tensor
    place: Tensor
    real: Tensor


def read_names(context: ForwardContext, rows: int) -> Tensor:
    """The document of every token, int64 [B, T]; 1 where the pass has none."""
    if context.segments is not None:
        return context.segments
    return torch.ones(1, context.tokens, dtype=torch.long, device=context.positions_BT.device).expand(rows, -1)


def start_count(rows: int, device: torch.device) -> DocumentCount:
    """The count of rows that have begun no document."""
    zeros_B = torch.zeros(rows, dtype=torch.long, device=device)
    return DocumentCount(zeros_B, zeros_B)


def view_keys(places: DocumentPlaces, before: DocumentCount, ring: int) -> KeyView:
    """The documents of the ring's keys and of the new ones."""
    slots_R = torch.arange(-ring, 0, device=before.seen.device)
    place_BR = before.seen.unsqueeze(1) + slots_R
    real_BR = place_BR >= 0
    return KeyView(
        torch.cat((torch.zeros_like(place_BR), places.number), 1),
        torch.cat((place_BR, places.place), 1),
        torch.cat((real_BR, places.real), 1),
    )


def see_keys(places: DocumentPlaces, keys: KeyView, *, block: int | None = None, window: int | None = None) -> Tensor:
    """Which keys each query sees, bool [B, 1, T, S]: its own and earlier ones of its document, and padding itself.

    block   keys of the query's own block of this many tokens of its document alone
    window  the query's own key and those up to window - 1 before it alone
    """
    query_BT1, key_B1S = places.place.unsqueeze(2), keys.place.unsqueeze(1)
    seen = (places.number.unsqueeze(2) == keys.number.unsqueeze(1)) & keys.real.unsqueeze(1) & (key_B1S <= query_BT1)
    if block is not None:
        seen = seen & (key_B1S // block == query_BT1 // block)
    if window is not None:
        seen = seen & (key_B1S > query_BT1 - window)
    tokens, ring = places.place.shape[1], keys.place.shape[1] - places.place.shape[1]
    own_TS = F.pad(torch.eye(tokens, dtype=torch.bool, device=seen.device), (ring, 0))
    return (seen & places.real.unsqueeze(2) | own_TS).unsqueeze(1)


def keep_last(
    kept: Tensor, new: Tensor, size: int, real_BT: Tensor | None, *, dim: int = 2, fill: bool = True
) -> Tensor:
    """The last `size` real tokens of what was kept and what is new.

    real_BT  None = all are
    fill     put zeros before them where there are fewer places
    """
    joined = torch.cat((kept.to(new.dtype), new), dim)
    if real_BT is not None:
        real_BS = F.pad(real_BT, (joined.shape[dim] - real_BT.shape[1], 0), value=True)
        order_BS = real_BS.long().argsort(dim=1, stable=True)[:, -size:]
        view = [len(order_BS), *[1] * (joined.ndim - 1)]
        view[dim] = order_BS.shape[1]
        shape = list(joined.shape)
        shape[dim] = order_BS.shape[1]
        joined = joined.gather(dim, order_BS.view(view).expand(shape))
    joined = joined.narrow(dim, max(joined.shape[dim] - size, 0), min(size, joined.shape[dim]))
    return fill_places(joined, size, dim=dim) if fill else joined


def fill_places(x: Tensor, size: int, *, dim: int = 2) -> Tensor:
    """The same with zeros in front, up to `size` places."""
    return F.pad(x, [0, 0] * (x.ndim - 1 - dim) + [size - x.shape[dim], 0])


def attend_keys(
    heads: Heads, mask: Tensor, spec: AttentionSpec, positions_BT: Tensor, key_positions_BS: Tensor
) -> Tensor:
    """softmax over the keys of a mask [B, 1, T, S], with the bias of positions and all else that the layer adds."""
    if spec.scores is None:
        return attend_sdpa(heads, spec, mask)
    if spec.scores.contextual:
        k = heads.k.repeat_interleave(heads.q.shape[1] // heads.k.shape[1], dim=1)
        bias = spec.scores(heads.q, k, mask)
    else:
        bias = spec.scores(positions_BT, key_positions_BS)
    return attend_sdpa(heads, spec, bias.masked_fill(~mask, -torch.inf).to(heads.q.dtype))


class LocalKeys(NamedTuple):
    """Rotated keys and values [B, K, R, D] and positions [B, R] of a row's last tokens, the newest at the end."""

    keys: Tensor
    values: Tensor
    positions: Tensor


class LocalPiece(NamedTuple):
    """Part of a pass: rotated heads, positions, documents, and whether some tokens may be padding."""

    heads: Heads
    positions: Tensor
    places: DocumentPlaces
    padded: bool


def attend_segment(
    piece: LocalPiece, kept: LocalKeys, before: DocumentCount, spec: AttentionSpec, size: int
) -> tuple[Tensor, LocalKeys]:
    """Attention to earlier tokens of the query's own segment of `size` tokens, and what is kept after the piece."""
    new = LocalKeys(*piece.heads[1:], piece.positions)
    mask = see_keys(piece.places, view_keys(piece.places, before, kept.keys.shape[2]), block=size)
    k, v, positions_BS = (torch.cat((old.to(x.dtype), x), dim) for old, x, dim in zip(kept, new, DIMS, strict=True))
    out = attend_keys(Heads(piece.heads.q, k, v), mask, spec, piece.positions, positions_BS)
    return out, keep_local(kept, new, size, piece.places.real if piece.padded else None)


def keep_local(kept: LocalKeys, new: LocalKeys, size: int, real_BT: Tensor | None) -> LocalKeys:
    """The last `size` tokens of both."""
    return LocalKeys(*(keep_last(old, x, size, real_BT, dim=dim) for old, x, dim in zip(kept, new, DIMS, strict=True)))


def start_local(rows: int, heads: int, kept: int, dims: int, like: Tensor) -> LocalKeys:
    """Room for `kept` tokens, all zeros, in the dtype and on the device of `like`."""
    keys, values = (like.new_zeros(rows, heads, kept, dims) for _ in range(2))
    return LocalKeys(keys, values, torch.zeros(rows, kept, dtype=torch.long, device=like.device))
