"""The kernels of the spike memory against their references: in Triton's interpreter, or on CUDA."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from aptlab.nn.smooth import SketchRule, SketchTeacher, SpikeSketch
from aptlab.nn.smooth import sketch as room
from aptlab.ops import spikes as op

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def make_spikes(generator, sites, count, dim, centres):
    """Candidates [S, m, C + 1] around a few directions, some anywhere, some none, one not finite."""
    picks = torch.randint(len(centres), (sites, count), generator=generator)
    scale = torch.where(torch.rand(sites, count, 1, generator=generator) < 0.2, 3.0, 0.09) * (12 / dim) ** 0.5
    directions = F.normalize(centres[picks] + scale * torch.randn(sites, count, dim, generator=generator), dim=-1)
    strengths = 0.5 + 2 * torch.rand(sites, count, 1, generator=generator)
    strengths[torch.rand(strengths.shape, generator=generator) < 0.3] = 0
    directions[0, 1, 2] = torch.inf
    return torch.cat((directions, strengths), -1)


def fill_sketch(dim, rule=None, steps=8):
    generator = torch.Generator().manual_seed(1)
    sketch = SpikeSketch(dim, rule or SketchRule())
    centres = F.normalize(torch.randn(6, dim, generator=generator), dim=-1)
    for _ in range(steps):
        spikes = make_spikes(generator, 1, 8, dim, centres)[0]
        sketch.update(spikes[:, :-1], spikes[:, -1])
    return sketch, centres


def assert_danger(device, dtype, dim=24, rows=(2, 70)):
    sketch, centres = fill_sketch(dim)
    generator = torch.Generator().manual_seed(2)
    noise = 0.6 * torch.rand(*rows, 1, generator=generator) * torch.randn(*rows, dim, generator=generator)
    near = centres[torch.randint(6, rows, generator=generator)] + noise / dim**0.5
    size = torch.logspace(-3, 3, rows[1]).view(1, -1, 1)
    delta = (near * size).to(device, dtype)
    delta[0, 0], delta[0, 1, 3] = 0.0, torch.inf
    sketch.to(device)
    entries = (sketch.directions, sketch.strengths, sketch.ages, sketch.lives)
    got = op.run_danger(delta, *entries, 0.7)
    expected = op.measure_danger_reference(delta.double(), *(x.double() for x in entries), 0.7)
    assert got.dtype == torch.float32
    assert got.shape == (*rows, 1)
    error = (got.double() - expected).abs().max().item()
    assert error <= 1e-5, f"danger {dtype}: {error:.2e}"
    assert (expected > 0.1).float().mean() > 0.1


def assert_picks(device, dtype, dim=24, tokens=2500):
    generator = torch.Generator().manual_seed(3)
    delta = torch.randn(1, tokens, 2 * dim, generator=generator).to(device, dtype)[..., dim:]
    s = 2 * torch.rand(1, tokens, 1, generator=generator).to(device)
    s[0, 3], s[0, 4], s[0, 2000] = torch.nan, torch.inf, 5.0
    for top, threshold in ((4, 0.5), (3, 4.0), (2, 9.0)):
        directions, strengths = op.run_pick(delta, s, top, threshold)
        right, order = op.pick_spikes_reference(delta, s, top, threshold)
        assert torch.equal(strengths, order)
        assert (directions[order > 0] - right[order > 0]).abs().le(1e-6).all()
        assert not directions[order == 0].any()
    directions, strengths = op.run_pick(delta[:, :2], s[:, :2], 4, 0.0)
    assert strengths.tolist() == [*s[0, :2, 0].sort(descending=True).values.tolist(), 0.0, 0.0]


def assert_updates(device, dim=12, steps=40, other=None, **sizes):
    """The kernel writes what the CPU writes, step after step; a skipped step changes nothing."""
    rules, generator = (SketchRule(**sizes), SketchRule(**(other or sizes))), torch.Generator().manual_seed(4)
    slow, fast = ([SpikeSketch(dim, rule) for rule in rules] for _ in range(2))
    for sketch in fast:
        sketch.to(device)
    teacher, centres = SketchTeacher(fast), F.normalize(torch.randn(8, dim, generator=generator), dim=-1)
    for step in range(steps):
        spikes = make_spikes(generator, 2, 6, dim, centres)
        teacher._update_on_device(spikes.to(device), skipped=False)
        for skipped in (True, torch.ones((), device=device, dtype=torch.bool)):
            if step == 3:
                teacher._update_on_device(spikes.to(device), skipped=skipped)
        for one, two, found in zip(slow, fast, spikes, strict=True):
            one.update(found[:, :-1], found[:, -1])
            for name in room.NAMES:
                right, got = getattr(one, name), getattr(two, name).cpu()
                live = one.strengths > 0
                assert torch.allclose(got[live], right[live], atol=2e-6), (step, name)
            assert torch.equal(two.strengths.cpu() > 0, live), step
    assert sum(int((sketch.strengths[sketch.rule.ring :] > 0).sum()) for sketch in slow) >= 2


def assert_all_cases(device):
    for dtype in DTYPES:
        assert_danger(device, dtype)
        assert_picks(device, dtype)
    assert_danger(device, torch.bfloat16, dim=100, rows=(1, 129))
    assert_updates(device)
    assert_updates(device, other={"ring": 5}, ring=3, centroids=2, short=2.0, mid=5.0, top=2)


if __name__ == "__main__":
    assert_all_cases("cpu")
    print("all cases passed")
