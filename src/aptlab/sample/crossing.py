"""Position rules that choose by length, while a text grows. Legend: B rows, S cached keys, P pairs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from aptlab.errors import AptlabError
from aptlab.models import Decoder
from aptlab.nn.attention.cache import KVCache
from aptlab.nn.positions.rotary import Angles


class RowLengths:
    """The length that rows tell their position rules, and what happens where a rule then changes its mind.

    told_B  int64 [B]: the final length under "admit", else the length so far
    Keys that were rotated before a change do not fit queries rotated after it. Reading the text again is exact.
    Rotating the keys again is not: beyond the first layer they were computed from states under the old angles.
    """

    def __init__(self, net: Decoder, crossing: str, sizes_B: Tensor, steps: int) -> None:
        self.net, self.crossing = net, crossing
        self.told_B = sizes_B + steps if crossing == "admit" else sizes_B.clone()

    def grow(self, cache: KVCache) -> bool:
        """Count one more token in every row; true if the text must be read again (the cache is then empty).

        Raises AptlabError where the policy is "error" and a rule changes.
        """
        before = self.told_B.clone()
        self.told_B += 1
        if not self._changes(before):
            return False
        if self.crossing == "error":
            raise AptlabError(
                f"the position rule changes at {int(self.told_B.max())} tokens, and crossing=error; use crossing=admit "
                "to choose by the final length, or crossing=reprefill to read the text again"
            )
        if self.crossing == "rerotate":
            self._turn(cache, before)
            return False
        cache.clear()
        return True

    def _changes(self, before: Tensor) -> bool:
        place = torch.zeros(len(before), 1, dtype=torch.long, device=before.device) + 1
        rotaries: Any = self.net.rotaries
        for rotary in rotaries:
            if rotary.adaptive:
                old, new = (rotary.angles(place, lengths.unsqueeze(1)) for lengths in (before, self.told_B))
                if not torch.equal(old.cos, new.cos) or not torch.equal(old.sin, new.sin):
                    return True
        return False

    def _turn(self, cache: KVCache, before: Tensor) -> None:
        """Rotate every cached key by the difference between its new angle and its old one."""
        mixers = [pair for block in self.net.each_block() for pair in block.mixers()]
        for site, mixer in mixers:
            rotary = mixer.layer_positions.rotary
            if rotary is None or not rotary.adaptive:
                continue
            keys = cache.layers[site].stored_keys()
            places = cache.positions_BS[:, cache.length - keys.shape[2] : cache.length]
            old = rotary.angles(places, before.unsqueeze(1).expand_as(places))
            new = rotary.angles(places, self.told_B.unsqueeze(1).expand_as(places))
            keys.copy_(rotary.rotate(keys, subtract_angles(old, new)))


def subtract_angles(old: Angles, new: Angles) -> Angles:
    """The angles that lead from the old ones to the new ones."""
    size = old.cos**2 + old.sin**2  # not 1 where cosines carry a temperature
    cos, sin = new.cos * old.cos + new.sin * old.sin, new.sin * old.cos - new.cos * old.sin
    return Angles(cos / size, sin / size)
