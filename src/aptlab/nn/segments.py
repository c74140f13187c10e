"""Texts that are read in segments: which document each token belongs to, how far into it, and what is kept between.

Legend: B rows, T tokens of a pass. A document's name is what `segments` gives it, 0 = padding. It keeps its name from
pass to pass, and its tokens lie side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from aptlab.errors import AptlabError

POSITIONS = "positions"  # the entry of `Output.states` that counts positions; all others are of sites ("3/attention")
ONE_DOCUMENT = (
    "what a row keeps is about one document at a time: give each document's tokens side by side, and another name to "
    "another document"
)


class DocumentCount(NamedTuple):
    """What a row knows of the document that it is in: tokens so far, int64 [B], and the document's name, int64 [B].

    Zeros are those of a row that has begun no document.
    """

    seen: Tensor
    document: Tensor


class DocumentPlaces(NamedTuple):
    """The documents of a pass's tokens.

    number  int64 [B, T], 0 = the document that the row was in before; rises by one where the next begins
    real    bool [B, T], false for padding
    place   int64 [B, T], tokens of the token's own document before it, those of earlier passes included
    after   what the row knows at the end of the pass
    """

    number: Tensor
    real: Tensor
    place: Tensor
    after: DocumentCount


def count_documents(names_BT: Tensor, before: DocumentCount) -> DocumentPlaces:
    """Where documents begin, and every token's place in its own; padding is passed over.

    AptlabError for a document that comes back after another one (looked at where that needs no wait for a device).
    """
    real_BT = names_BT != 0
    current_BT = torch.cat((before.document.unsqueeze(1), names_BT), 1).gather(1, F.pad(find_last(real_BT), (1, 0)))
    begins_BT = current_BT[:, 1:] != current_BT[:, :-1]
    number_BT = begins_BT.cumsum(1)
    check_contiguous_segments(names_BT, number_BT, ONE_DOCUMENT)
    counted_BT = real_BT.cumsum(1)
    first_BT = torch.where(begins_BT, counted_BT - 1, -before.seen.unsqueeze(1)).cummax(1).values
    seen_BT = counted_BT - first_BT
    place_BT = torch.clamp(seen_BT - 1, min=0)
    return DocumentPlaces(number_BT, real_BT, place_BT, DocumentCount(seen_BT[:, -1], current_BT[:, -1]))


def find_last(real_BT: Tensor) -> Tensor:
    """1 + the place of the last real token up to each place, 0 where there is none, int64 [B, T]."""
    places_T = torch.arange(1, real_BT.shape[1] + 1, device=real_BT.device)
    return torch.where(real_BT, places_T, 0).cummax(dim=1).values


def check_contiguous_segments(names_BT: Tensor, number_BT: Tensor, reason: str) -> None:
    """AptlabError where a document comes back after another; looked at where that needs no wait for a device.

    number_BT  rises where another document begins
    reason     why it must not, and the way out
    """
    if torch.compiler.is_compiling() or names_BT.device.type != "cpu":
        return
    order_BT = names_BT.argsort(dim=1, stable=True)
    names, numbers = names_BT.gather(1, order_BT), number_BT.gather(1, order_BT)
    again = (names[:, 1:] == names[:, :-1]) & (numbers[:, 1:] != numbers[:, :-1]) & (names[:, 1:] != 0)
    if again.any():
        row = int(again.any(1).nonzero()[0])
        raise AptlabError(f"a segment of row {row} comes back after another one, and {reason}")


def count_positions(names_BT: Tensor, before: DocumentCount) -> Tensor:
    """Positions that go on in the document of the segment before and begin at 0 in a new one, int64 [B, T]."""
    return count_documents(names_BT, before).place


def find_next_positions(
    positions_BT: Tensor, names_BT: Tensor | None, before: DocumentCount | None, rows: int
) -> DocumentCount:
    """The position that the next token of each row's document has, and the document, after a pass."""
    positions_BT = positions_BT.expand(rows, -1)
    if names_BT is None:
        return DocumentCount(positions_BT[:, -1] + 1, torch.ones_like(positions_BT[:, -1]))
    begin_B = torch.zeros_like(positions_BT[:, :1])
    seen_B1, document_B1 = (begin_B, begin_B) if before is None else (x.unsqueeze(1) for x in before)
    last_B1 = find_last(names_BT != 0)[:, -1:]
    seen_B = torch.cat((seen_B1, positions_BT + 1), 1).gather(1, last_B1).squeeze(1)
    return DocumentCount(seen_B, torch.cat((document_B1, names_BT), 1).gather(1, last_B1).squeeze(1))


def compute_segment_lengths(positions_BT: Tensor, segments_BT: Tensor | None) -> Tensor:
    """Largest position + 1 of each token's own segment, int64 [B, T]; segments may have any names."""
    if segments_BT is None:
        return (positions_BT.amax(-1, keepdim=True) + 1).expand_as(positions_BT)
    positions_BT = positions_BT.expand_as(segments_BT)
    sorted_BT, order_BT = segments_BT.sort(dim=1, stable=True)
    ranks_BT = F.pad((sorted_BT[:, 1:] != sorted_BT[:, :-1]).cumsum(1), (1, 0))
    number_BT = torch.empty_like(segments_BT).scatter(1, order_BT, ranks_BT)
    largest = torch.zeros_like(positions_BT).scatter_reduce(1, number_BT, positions_BT, "amax")
    return largest.gather(1, number_BT) + 1


# What sites keep: a tensor, or a tuple, list or dict of such, whose first dim is the rows. All zeros = nothing kept.


def map_states(states: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same structure with every tensor changed."""
    if isinstance(states, Tensor):
        return change(states)
    if isinstance(states, Mapping):
        return {key: map_states(value, change) for key, value in states.items()}
    if isinstance(states, tuple) and type(states) is not tuple:  # a NamedTuple takes its fields one by one
        return type(states)(*(map_states(value, change) for value in states))
    if isinstance(states, tuple | list):
        return type(states)(map_states(value, change) for value in states)
    return states


def list_tensors(states: Any) -> Iterator[Tensor]:
    """The tensors of a structure, in order."""
    if isinstance(states, Tensor):
        yield states
    elif isinstance(states, Mapping | tuple | list):
        for value in states.values() if isinstance(states, Mapping) else states:
            yield from list_tensors(value)


def detach_states(states: Mapping[str, Any]) -> dict[str, Any]:
    """States through which no gradient goes back: what truncated backpropagation hands to the next segment."""
    return map_states(states, lambda x: x.detach())


def select_rows(states: Mapping[str, Any], rows: Tensor | slice) -> dict[str, Any]:
    """The states of some rows; `rows` is a slice, a mask or an index of the first dim."""
    return map_states(states, lambda x: x[rows])


def reset_states(states: Mapping[str, Any], mask_B: Tensor) -> dict[str, Any]:
    """States in which the rows of the mask have kept nothing, as at the start of a document."""

    def clear(x: Tensor) -> Tensor:
        mask = mask_B.to(x.device).view(-1, *[1] * (x.ndim - 1))
        return torch.where(mask, torch.zeros((), dtype=x.dtype, device=x.device), x)

    return map_states(states, clear)


def count_state_bytes(states: Mapping[str, Any]) -> int:
    """Memory that states take."""
    return sum(x.nbytes for x in list_tensors(states))


def make_plain_states(states: Any) -> Any:
    """States as dicts, tuples and tensors alone, on the CPU: what `torch.load(weights_only=True)` reads again."""
    if isinstance(states, Tensor):
        return states.detach().cpu()
    if isinstance(states, Mapping):
        return {key: make_plain_states(value) for key, value in states.items()}
    if isinstance(states, tuple | list):
        return tuple(make_plain_states(value) for value in states)
    return states


def move_states(states: Mapping[str, Any], device: torch.device | str) -> dict[str, Any]:
    """States on another device."""
    return map_states(states, lambda x: x.to(device))


def check_state_rows(states: Mapping[str, Any], rows: int, sites: set[str]) -> None:
    """AptlabError for states of other sites than the model's, and for those of another number of rows."""
    if strange := sorted(states.keys() - sites - {POSITIONS}):
        raise AptlabError(
            f"states has {', '.join(strange)}, and the sites of this model that mix tokens are "
            f"{', '.join(sorted(sites))}; give the states of a pass of this model"
        )
    if wrong := [x.shape[0] for x in list_tensors(states) if x.shape[0] != rows]:
        raise AptlabError(
            f"states are those of {wrong[0]} rows and this pass has {rows}; select_rows takes some of them"
        )
