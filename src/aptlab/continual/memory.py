"""The samples that a buffer holds: in each group those with the smallest keys.

Legend: B samples offered at once, N samples held, G groups seen, c the capacity.

Every policy is one rule with other keys and groups. Uniform keys in one group are a reservoir (Vitter 1985; with keys
as in Efraimidis & Spirakis 2006 at equal weights), uniform keys by class or task its balanced form, keys that fall with
time a ring, ranks of herding an exemplar set. Group number i of G, in the order of their ids and from 0, may hold
ceil((c - i) / G) samples: c / G each, the rest one by one. What is held is a function of the set that was offered, not
of its order or of how it was shared out, so that memories merge exactly.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aptlab.data.rows.order import permute_indices
from aptlab.errors import CheckpointError

FIELDS = {"numbers": np.int64, "rows": np.int64, "groups": np.int64, "keys": np.uint64}
BYTES = sum(np.dtype(kind).itemsize for kind in FIELDS.values()) + 176  # of a sample: its fields, heap entry and slot
LAPS = 1 << 20
EMPTY = -1


@dataclass(frozen=True)
class Offer:
    """Samples that come along, each [B].

    numbers  in the stream, from 0: no two samples ever have the same
    rows     where their data are, as the data module counts
    groups   class or task, >= 0
    keys     uint64; the smallest are held
    """

    numbers: np.ndarray
    rows: np.ndarray
    groups: np.ndarray
    keys: np.ndarray


class KeyedMemory:
    """At most `capacity` samples in numbered slots; a sample keeps its slot as long as it is held.

    An offer that is not taken costs a comparison. One that is takes O(log N); of a stream of n samples that is a
    reservoir's c/n-th part, so a sample takes O(1) on average.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._fields = {name: np.zeros(capacity, dtype=kind) for name, kind in FIELDS.items()}
        self._fields["numbers"].fill(EMPTY)
        self._free = list(range(capacity - 1, -1, -1))
        self._heaps: dict[int, list[tuple[int, int, int]]] = {}  # group -> (-key, -number, slot), the largest key first
        self._sorted: np.ndarray | None = None

    def __len__(self) -> int:
        return self.capacity - len(self._free)

    @property
    def groups(self) -> tuple[int, ...]:
        """The groups that were seen, in order."""
        return tuple(sorted(self._heaps))

    def count_quota(self, group: int) -> int:
        """Samples that a group may hold now."""
        order = self.groups
        return max(0, -(-(self.capacity - order.index(group)) // len(order)))

    def add(self, offer: Offer) -> tuple[np.ndarray, np.ndarray]:
        """Take what belongs in; returns the slots that have a new sample, and which of the offer each has, int64."""
        for group in np.unique(offer.groups).tolist():
            if group not in self._heaps:
                self._heaps[group] = []
                self._shrink_groups()
        taken: dict[int, int] = {}
        for position in self._find_candidates(offer):
            slot = self._place(offer, position)
            if slot is not None:
                taken[slot] = position
        if taken:
            self._sorted = None
        return np.fromiter(taken, np.int64, len(taken)), np.fromiter(taken.values(), np.int64, len(taken))

    def merge(self, others: Sequence[KeyedMemory]) -> KeyedMemory:
        """What one memory would hold that was offered all that these were, each sample to one of them."""
        found = KeyedMemory(self.capacity)
        memories = (self, *others)
        for group in sorted({group for memory in memories for group in memory._heaps}):
            found._heaps[group] = []
        for memory in memories:
            found.add(memory.list_samples())
        return found

    def list_samples(self) -> Offer:
        """The samples that are held, in the order of their numbers."""
        slots = self.sort_slots()
        return Offer(**{name: values[slots] for name, values in self._fields.items()})

    def sort_slots(self) -> np.ndarray:
        """The slots in use, in the order of their samples' numbers."""
        if self._sorted is None:
            numbers = self._fields["numbers"]
            used = np.flatnonzero(numbers != EMPTY)
            self._sorted = used[np.argsort(numbers[used])]
        return self._sorted

    def draw_slots(self, positions: np.ndarray, *, seed: int, number: int) -> np.ndarray:
        """The samples at `positions` of draw `number`, as slots; a pure function of what is held, seed and number.

        Positions 0 to N-1 are all samples in a random order, the next N again in another one: so no sample is drawn
        twice as long as there are others, and ranks that take different positions share out one draw. Empty when
        nothing is held.
        """
        slots = self.sort_slots()
        if not len(slots):
            return np.zeros(0, dtype=np.int64)
        laps, places = np.divmod(positions, len(slots))
        found = np.zeros(len(positions), dtype=np.int64)
        for lap in np.unique(laps).tolist():
            of_lap = laps == lap
            order = permute_indices(places[of_lap], count=len(slots), seed=seed, epoch=number * LAPS + lap)
            found[of_lap] = slots[order]
        return found

    def get_rows(self, slots: np.ndarray) -> np.ndarray:
        """Where the data of the samples in these slots are."""
        return self._fields["rows"][slots]

    def get_groups(self, slots: np.ndarray) -> np.ndarray:
        """Groups of the samples in these slots."""
        return self._fields["groups"][slots]

    def state(self) -> dict[str, np.ndarray]:
        """The samples by slot, with the slots in use and the groups seen."""
        slots = self.sort_slots()
        fields = {name: values[slots] for name, values in self._fields.items()}
        return {**fields, "slots": slots, "seen": np.asarray(self.groups, dtype=np.int64)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Hold what `state` says, slot by slot. Raises CheckpointError for more samples than the capacity."""
        slots = np.asarray(state["slots"], dtype=np.int64)
        if len(slots) and int(slots.max()) >= self.capacity:
            raise CheckpointError(
                f"the checkpoint's buffer has slots up to {int(slots.max()) + 1}, and replay.capacity is now "
                f"{self.capacity}; resume with the capacity that it had"
            )
        fresh = KeyedMemory(self.capacity)
        for name, kind in FIELDS.items():
            fresh._fields[name][slots] = np.asarray(state[name], dtype=kind)
        used = set(slots.tolist())
        fresh._free = [slot for slot in range(self.capacity - 1, -1, -1) if slot not in used]
        fresh._heaps = {int(group): [] for group in state["seen"]}
        for slot in slots.tolist():
            fresh._push(slot)
        self.__dict__.update(fresh.__dict__)

    def _find_candidates(self, offer: Offer) -> list[int]:
        """Positions of the offer that a full group's largest key does not refuse at once."""
        limits = np.full(len(offer.keys), np.iinfo(np.uint64).max, dtype=np.uint64)
        for group, heap in self._heaps.items():
            if heap and len(heap) >= self.count_quota(group):
                limits[offer.groups == group] = np.uint64(-heap[0][0])
        return np.flatnonzero(offer.keys <= limits).tolist()

    def _place(self, offer: Offer, position: int) -> int | None:
        """Put one sample into a slot if it belongs in; the slot, or None."""
        group, key = int(offer.groups[position]), int(offer.keys[position])
        heap, quota = self._heaps[group], self.count_quota(group)
        if len(heap) >= quota:
            if not heap or (-key, -int(offer.numbers[position])) <= heap[0][:2]:
                return None
            self._drop_largest(heap)
        slot = self._free.pop()
        for name, values in self._fields.items():
            values[slot] = getattr(offer, name)[position]
        self._push(slot)
        return slot

    def _push(self, slot: int) -> None:
        fields = self._fields
        entry = (-int(fields["keys"][slot]), -int(fields["numbers"][slot]), slot)
        heapq.heappush(self._heaps[int(fields["groups"][slot])], entry)

    def _drop_largest(self, heap: list[tuple[int, int, int]]) -> None:
        slot = heapq.heappop(heap)[2]
        self._fields["numbers"][slot] = EMPTY
        self._free.append(slot)
        self._sorted = None

    def _shrink_groups(self) -> None:
        for group, heap in self._heaps.items():
            while len(heap) > self.count_quota(group):
                self._drop_largest(heap)
