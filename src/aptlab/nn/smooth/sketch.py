"""Memory of the directions in which one site spiked. Legend: B batch, T tokens, C dim, N entries, k candidates."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from aptlab.nn.smooth.fixed_precision import FixedPrecision
from aptlab.nn.smooth.rule import SketchRule
from aptlab.ops.spikes import can_use_spike_kernel, make_unit, measure_danger, pick_spikes

NAMES = ("directions", "strengths", "ages", "lives", "counts")


class SpikeSketch(FixedPrecision):
    """A ring of fading spikes and a few lasting centroids, read in the forward pass and written once per step.

        danger(delta) = max_j s_j · relu(cos(delta, n_j) - near) / (1 - near) · 2^(-age_j / H_j)

    Entry j: unit direction n_j, strength s_j (0 = free), age_j in optimizer steps since it was last seen, half-life
    H_j, and how often it was seen. The first `ring` entries fade, the last `centroids` have H = inf. All are
    persistent float32 buffers: part of the state_dict, the same on all ranks, and no .to(bfloat16) casts them.
    """

    directions: Tensor
    strengths: Tensor
    ages: Tensor
    lives: Tensor
    counts: Tensor

    def __init__(self, dim: int, rule: SketchRule) -> None:
        super().__init__()
        self.rule = rule
        entries = rule.ring + rule.centroids
        lives = [rule.short] * rule.ring + [math.inf] * rule.centroids
        self.register_buffer("directions", torch.zeros(entries, dim, dtype=torch.float32))
        self.register_buffer("strengths", torch.zeros(entries, dtype=torch.float32))
        self.register_buffer("ages", torch.zeros(entries, dtype=torch.float32))
        self.register_buffer("lives", torch.tensor(lives, dtype=torch.float32))
        self.register_buffer("counts", torch.zeros(entries, dtype=torch.float32))

    def danger(self, delta_BTC: Tensor) -> Tensor:
        """How near each step is to a remembered spike, [B, T, 1] in [0, 1]; detached, writes nothing."""
        entries = (self.directions, self.strengths, self.ages, self.lives)
        return measure_danger(delta_BTC, *entries, self.rule.near)

    def propose(self, delta_BTC: Tensor, s_BT1: Tensor) -> tuple[Tensor, Tensor]:
        """The `top` strongest tokens: unit directions [top, C] and strengths [top], 0 where there is no spike."""
        return pick_spikes(delta_BTC, s_BT1, self.rule.top, self.rule.threshold)

    @torch.no_grad()
    def update(self, directions_kC: Tensor, strengths_k: Tensor) -> None:
        """One optimizer step passes: everything ages by one, and the `top` strongest candidates are remembered.

        Candidates are taken by strength, then by index; those of strength 0 or with anything non-finite are none.
        A candidate with a cosine of at least `match` to a live entry is that entry come back (the nearest one):
        its age becomes 0, its strength the larger of both, and, once per step, an entry of half-life `short` gets
        `mid`, one of `mid` becomes a centroid, and a centroid moves to the renormalised mean of what it has seen.
        Anything else enters the ring in a free place or over the most faded entry. A new centroid takes a free place
        or that of the centroid unused for longest (the weakest of those). Runs on the CPU in float32, so equal
        inputs give equal buffers on every rank; `SketchTeacher` does it on the device.
        """
        self.ages += self.strengths > 0
        picked = self._pick(directions_kC, strengths_k)
        if picked:
            entries = SketchEntries(self.rule, *(getattr(self, name).cpu().clone() for name in NAMES))
            for direction_C, strength in picked:
                entries.add(direction_C, strength)
            for name in NAMES:
                getattr(self, name).copy_(getattr(entries, name))

    def _pick(self, directions_kC: Tensor, strengths_k: Tensor) -> list[tuple[Tensor, float]]:
        directions, strengths = directions_kC.detach().float().cpu(), strengths_k.detach().float().cpu()
        good = directions.isfinite().all(-1) & strengths.isfinite() & (strengths > 0) & (directions != 0).any(-1)
        order = torch.where(good, strengths, 0.0).argsort(descending=True, stable=True)[: self.rule.top]
        return [(make_unit(directions[i]), float(strengths[i])) for i in order.tolist() if good[i]]

    def extra_repr(self) -> str:
        """Size and rule, for printing."""
        return f"{self.directions.shape[1]}, {self.rule}"


class SketchEntries:
    """The sketch's buffers on the CPU while a step's spikes are written, one at a time."""

    def __init__(
        self, rule: SketchRule, directions: Tensor, strengths: Tensor, ages: Tensor, lives: Tensor, counts: Tensor
    ) -> None:
        self.rule = rule
        self.directions, self.strengths, self.ages, self.lives, self.counts = directions, strengths, ages, lives, counts

    def add(self, direction_C: Tensor, strength: float) -> None:
        """Remember a spike, or one that is near a remembered one, by its tier."""
        j = self._nearest(direction_C, 0)
        if j is None:
            self._write(self._place_in_ring(), direction_C, strength, self.rule.short, 1.0)
            return
        strength = max(strength, float(self.strengths[j]))
        if self.ages[j] > 0:
            self._come_back(j, direction_C, strength)
        else:
            self.strengths[j] = strength

    def _come_back(self, j: int, direction_C: Tensor, strength: float) -> None:
        """Entry j was seen again, for the first time in this step."""
        if j >= self.rule.ring:
            count = float(self.counts[j])
            mean_C = make_unit(count * self.directions[j] + direction_C)
            self._write(j, mean_C, strength, math.inf, count + 1)
        elif self.counts[j] < 2:
            self._write(j, self.directions[j], strength, self.rule.mid, 2.0)
        else:
            self._promote(make_unit(2 * self.directions[j] + direction_C), strength)
            self.strengths[j] = 0.0

    def _promote(self, direction_C: Tensor, strength: float) -> None:
        """Three sightings make a centroid, or join the one that is already there."""
        j = self._nearest(direction_C, self.rule.ring)
        if j is None:
            self._write(self._place_for_centroid(), direction_C, strength, math.inf, 3.0)
            return
        count = float(self.counts[j])
        mean_C = make_unit(count * self.directions[j] + 3 * direction_C)
        self._write(j, mean_C, max(strength, float(self.strengths[j])), math.inf, count + 3)

    def _write(self, j: int, direction_C: Tensor, strength: float, life: float, count: float) -> None:
        self.directions[j] = direction_C
        self.strengths[j], self.ages[j], self.lives[j], self.counts[j] = strength, 0.0, life, count

    def _nearest(self, direction_C: Tensor, first: int) -> int | None:
        """The live entry from `first` on with the largest cosine, if that is at least `match`."""
        cosine_N = (self.directions[first:] @ direction_C).masked_fill(self.strengths[first:] == 0, -2.0).tolist()
        j = max(range(len(cosine_N)), key=cosine_N.__getitem__)
        return first + j if cosine_N[j] >= self.rule.match else None

    def _place_in_ring(self) -> int:
        left = (self.strengths * torch.exp2(-self.ages / self.lives)).tolist()
        return min(range(self.rule.ring), key=left.__getitem__)

    def _place_for_centroid(self) -> int:
        places = range(self.rule.ring, len(self.strengths))
        strengths, ages = self.strengths.tolist(), self.ages.tolist()
        return min(places, key=lambda j: (strengths[j] > 0, -ages[j], strengths[j], j))


class SketchTeacher:
    """One optimizer step of all memories of a network, on the device that holds them where that has the kernel.

    There no step waits: nothing is copied to the host, and one program a site writes its memory. Numbers are those of
    `SpikeSketch.update` up to the rounding of sums; equal inputs give equal buffers on equal devices.
    """

    def __init__(self, sketches: Sequence[SpikeSketch]) -> None:
        self.sketches = list(sketches)
        rules = dict.fromkeys(sketch.rule for sketch in self.sketches)  # one kernel has sizes of one rule
        self._groups = [[i for i, sketch in enumerate(self.sketches) if sketch.rule == rule] for rule in rules]
        self._tables: dict[int, tuple[list[list[int]], Tensor]] = {}

    @torch.no_grad()
    def update(self, spikes_SmC: Tensor, skipped: bool | Tensor = False) -> None:
        """Age and write every memory by its candidates, [S, m, C + 1]: direction, then strength; not if skipped."""
        if can_use_spike_kernel(spikes_SmC):
            self._update_on_device(spikes_SmC, skipped)
        elif not skipped:
            for sketch, spikes_mC in zip(self.sketches, spikes_SmC.cpu(), strict=True):
                sketch.update(spikes_mC[:, :-1], spikes_mC[:, -1])

    def _update_on_device(self, spikes_SmC: Tensor, skipped: bool | Tensor) -> None:
        from aptlab.ops.triton import spikes as kernel

        device = spikes_SmC.device
        flag = skipped if isinstance(skipped, Tensor) else torch.full((1,), float(skipped), device=device)
        flag = flag.to(device, torch.float32).view(1)
        for number, members in enumerate(self._groups):
            rule = self.sketches[members[0]].rule
            given = spikes_SmC if len(self._groups) == 1 else spikes_SmC[members]
            how = kernel.SketchSpec(rule.ring, rule.ring + rule.centroids, rule.short, rule.mid, rule.match)
            kernel.remember_spikes(self._find_table(number, device), *pick_candidates(given, rule.top), flag, how)

    def _find_table(self, number: int, device: torch.device) -> Tensor:
        """Addresses of a group's buffers, int64 [S, 5], made again where a buffer has moved."""
        members = (self.sketches[i] for i in self._groups[number])
        addresses = [[getattr(sketch, name).data_ptr() for name in NAMES] for sketch in members]
        known = self._tables.get(number)
        if known is None or known[0] != addresses or known[1].device != device:
            known = self._tables[number] = addresses, torch.tensor(addresses, dtype=torch.int64, device=device)
        return known[1]


def pick_candidates(spikes_SmC: Tensor, top: int) -> tuple[Tensor, Tensor]:
    """The `top` strongest good candidates of every site: unit directions [S, K, C], strengths [S, K], 0 = none."""
    spikes = spikes_SmC.detach().float()
    directions, strengths = spikes[..., :-1], spikes[..., -1]
    good = directions.isfinite().all(-1) & strengths.isfinite() & (strengths > 0) & (directions != 0).any(-1)
    strengths = torch.where(good, strengths, 0.0)
    strengths, order = strengths.sort(dim=-1, descending=True, stable=True)
    strengths, order = strengths[:, :top].contiguous(), order[:, :top]
    picked = directions.gather(1, order.unsqueeze(-1).expand(-1, -1, directions.shape[-1]))
    return make_unit(picked).contiguous(), strengths
