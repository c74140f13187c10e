"""Whole documents in windows, with states and without. Legend: L tokens of a document, S of a window, N windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from aptlab.evals.scoring.lengths import make_autocast, put_prefix
from aptlab.models import Decoder
from aptlab.objectives import compute_token_nll

Sums = dict[str, list[float]]


@torch.inference_mode()
def score_document(
    net: Decoder,
    tokens_L: Tensor,
    *,
    window: int,
    device: torch.device | str = "cpu",
    precision: str = "32-true",
    prefix: Sequence[int] = (),
) -> Sums:
    """Sums over each window of a document: nats with states, nats without, targets; lists of N numbers.

    Positions are those of the document in both, so that only what was kept differs. `prefix`: ids that every text of
    the tokenizer begins with, put in place of the first tokens of the document, and of each window without states.
    """
    device = torch.device(device)
    net.to(device).eval()
    tokens_1L = tokens_L.to(device).unsqueeze(0)
    positions_1L = torch.arange(tokens_1L.shape[1] - 1, device=device).unsqueeze(0)
    parts = [part.split(window, dim=1) for part in (tokens_1L[:, :-1], tokens_1L[:, 1:], positions_1L)]
    sums: Sums = {"kept": [], "fresh": [], "counts": []}
    states: Any = {}
    with make_autocast(device, precision):
        for tokens_1S, targets_1S, places_1S in zip(*parts, strict=True):
            begun = put_prefix(tokens_1S, prefix)
            output = net(tokens_1S if states else begun, positions=places_1S, states=states)
            states = output.states
            fresh = net(begun, positions=places_1S, states={}).logits
            for name, logits in (("kept", output.logits), ("fresh", fresh)):
                sums[name].append(float(compute_token_nll(logits, targets_1S, "none").double().sum()))
            sums["counts"].append(targets_1S.numel())
    return sums


def summarize_windows(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of the windows 1, 2, 3-4, 5-8, … of all documents; a bucket that no document reaches is left out."""
    longest = max((len(record["counts"]) for record in records), default=0)
    rows, first, last = [], 0, 1
    while first < longest:
        found = {name: sum(sum(record[name][first:last]) for record in records) for name in ("kept", "fresh", "counts")}
        loss, fresh = found["kept"] / found["counts"], found["fresh"] / found["counts"]
        places = {"first": first + 1, "last": min(last, longest)}
        rows.append({**places, "loss": loss, "fresh": fresh, "gain": fresh - loss, "tokens": int(found["counts"])})
        first, last = last, 2 * last
    return rows
