"""Rows that a network reads window by window, and what it keeps of them from batch to batch.

Legend: B rows of this rank, W ranks, T tokens of a row, S of a window.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from aptlab.data.rows import SegmentPlan
from aptlab.nn.segments import (
    detach_states,
    list_tensors,
    make_plain_states,
    map_states,
    move_states,
    reset_states,
    select_rows,
)

States = dict[str, Any]
log = logging.getLogger("aptlab")


class SegmentReader:
    """Reads a batch in windows; the states of the last one are kept, without their gradient, for the next batch.

    plan  tokens of a window, and whether states go on to the next batch

    A row whose state holds a number that is not finite forgets it, so that a step that is skipped does no lasting harm.
    """

    def __init__(self, plan: SegmentPlan) -> None:
        self.plan = plan
        self._share = (0, 1)
        self._states: States = {}
        self._step = -1  # optimizer steps at the first micro-batch of the step in progress
        self._at_step: States = {}  # states before that micro-batch
        self._loaded: States = {}  # rows of all ranks

    def begin(self, share: tuple[int, int]) -> None:
        """Training begins, with what was loaded or with nothing; `share`: rank and number of ranks."""
        self._share = share
        self._states, self._at_step, self._step = {}, {}, -1

    def begin_batch(self, step: int) -> None:
        """A batch of this optimizer step comes; what is kept at its first one is what a checkpoint of it holds."""
        if step != self._step:
            self._step, self._at_step = step, self._states

    def read(self, call: Callable[..., Any], batch: Mapping[str, Tensor], *, keep: bool, **given: Any) -> Any:
        """The output of `call` for the whole batch.

        keep   go on where the batch before stopped, and leave what is kept at the end for the next one
        """
        keep = keep and self.plan.carry
        states = self._take(batch["tokens"]) if keep else {}
        outputs = []
        for window in split_windows(batch, self.plan.window):
            output = call(window.pop("tokens"), **window, states=states, **given)
            states = output.states
            outputs.append(output)
        if keep:
            self._states = forget_broken_rows(detach_states(states))
        return join_outputs(outputs)

    def _take(self, tokens: Tensor) -> States:
        """What was kept, for these rows and on their device."""
        if self._loaded:
            loaded, self._loaded = self._loaded, {}
            rank, world = self._share
            rows, found = len(tokens), next(list_tensors(loaded)).shape[0]
            if found == rows * world:
                mine = select_rows(loaded, slice(rank * rows, (rank + 1) * rows))
                self._states = self._at_step = move_states(mine, tokens.device)
            else:
                log.warning(
                    "the checkpoint keeps memory of %d rows, and there are %d now: rows begin without memory",
                    *(found, rows * world),
                )
        return self._states

    def pack(self, step: int, gather: Callable[[Tensor], Tensor]) -> States:
        """What a checkpoint of this optimizer step holds: plain values; `gather` joins the rows of all ranks."""
        if self._loaded:
            return self._loaded
        return make_plain_states(map_states(self._at_step if step == self._step else self._states, gather))

    def load(self, states: States) -> None:
        """Go on with what `pack` gave."""
        self._loaded = states


def split_windows(batch: Mapping[str, Tensor], window: int) -> Iterator[dict[str, Tensor]]:
    """Tokens, positions and segments of each window of a batch, [B, S]; the last one may be shorter."""
    parts = {name: batch[name].split(window, dim=1) for name in ("tokens", "positions", "segments") if name in batch}
    for number in range(len(parts["tokens"])):
        yield {name: pieces[number] for name, pieces in parts.items()}


def join_outputs(outputs: list[Any]) -> Any:
    """One output of all windows: tokens side by side, loss terms by their mean, statistics and states of the last."""
    if len(outputs) == 1:
        return outputs[0]
    last = outputs[-1]
    names = [name for name in ("logits", "hidden") if name in last._fields]
    joined = {name: torch.cat([getattr(output, name) for output in outputs], dim=1) for name in names}
    aux = {name: torch.stack([output.aux[name] for output in outputs]).mean(0) for name in last.aux}
    return last._replace(**joined, aux=aux)


def forget_broken_rows(states: States) -> States:
    """States in which rows that hold a number that is not finite have kept nothing."""
    broken = None
    for tensor in list_tensors(states):
        if tensor.is_floating_point():
            bad_B = ~torch.isfinite(tensor).flatten(1).all(1)
            broken = bad_B if broken is None else broken | bad_B
    return states if broken is None else reset_states(states, broken)
