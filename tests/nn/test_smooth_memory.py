"""The spike memory: read in forward, written by update, equal to its float64 reference."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from aptlab.errors import ConfigError
from aptlab.nn.smooth import LeftSpin, MemorySmooth, SketchRule, SpikeSketch
from aptlab.testing.smooth import join_once
from tests.reference import smooth as reference

DIM = 12


def make(**sketch):
    return MemorySmooth(DIM, layer=0, site="ffn", sketch=SketchRule(**sketch))


def axis(i, s=1.0):
    """A spike along one axis: directions [1, C], strengths [1]."""
    return torch.eye(DIM)[i : i + 1], torch.tensor([s])


def state(memory):
    return {name: value.clone() for name, value in memory.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def noisy_spikes(rng, centres, count):
    """Candidates around a few directions, cosine to the centre about 0.95, sometimes anywhere."""
    picks = torch.randint(len(centres), (count,), generator=rng)
    noise = torch.randn(count, DIM, generator=rng)
    scale = torch.where(torch.rand(count, 1, generator=rng) < 0.2, 3.0, 0.09)
    return F.normalize(centres[picks] + scale * noise, dim=-1), 0.5 + 2 * torch.rand(count, generator=rng)


@pytest.mark.parametrize("sizes", [{}, {"ring": 3, "centroids": 2, "short": 2.0, "mid": 5.0, "top": 2}])
def test_update_and_danger_equal_the_reference_over_many_steps(sizes):
    rng = torch.Generator().manual_seed(0)
    memory, expected = make(**sizes).sketch, reference.Memory(**sizes)
    centres = F.normalize(torch.randn(8, DIM, generator=rng), dim=-1)
    for step in range(60):
        directions, strengths = noisy_spikes(rng, centres, 6)
        strengths[torch.rand(6, generator=rng) < 0.3] = 0
        memory.update(directions, strengths)
        expected.update(list(zip(directions.double().tolist(), strengths.double().tolist())))
        entries = expected.ring + expected.centroids
        for j, entry in enumerate(entries):
            assert memory.strengths[j].item() == pytest.approx(entry["s"] if entry else 0.0, abs=1e-6), (step, j)
            if entry:
                assert torch.allclose(memory.directions[j].double(), torch.tensor(entry["n"]).double(), atol=1e-6)
                found = memory.ages[j].item(), memory.lives[j].item(), memory.counts[j].item()
                assert found == (entry["age"], entry["life"], entry["count"])
        delta = torch.randn(1, 1, DIM, generator=rng) + 2 * centres[step % 8]
        assert memory.danger(delta).item() == pytest.approx(expected.danger(delta[0, 0].double().tolist()), abs=1e-5)
    assert sum(entry is not None for entry in expected.centroids) >= 2


def test_forward_equals_the_reference_with_its_lift():
    memory, rng = make(), torch.Generator().manual_seed(1)
    memory.update(*axis(2, 0.8))
    u, delta = torch.randn(1, 4, DIM, generator=rng), torch.randn(1, 4, DIM, generator=rng)
    delta[..., 2] += 5
    out, _, seen = join_once(memory, u, delta, None, trace=True)
    assert seen["danger"] > 0.2
    numbers = {"alpha": 1.0, "tau": 0.5, "beta": 0.7, "kappa": 8.0, "w1": 1.0, "w2": 0.5, "reference": 0.02}
    remembered = reference.Memory()
    remembered.update([(torch.eye(DIM)[2].tolist(), 0.8)])
    for t in range(4):
        token = delta[0, t].double().tolist()
        lift = 0.5 * remembered.danger(token)
        expected = reference.left_spin(u[0, t].double().tolist(), token, None, **numbers, lift=lift)[0]
        assert torch.allclose(out[0, t], torch.tensor(expected, dtype=torch.float32), atol=1e-5)


def test_an_empty_memory_is_left_spin_and_a_spike_shrinks_its_own_direction_alone():
    memory, plain = make(), LeftSpin(DIM, layer=0, site="ffn")
    u = torch.ones(1, 1, DIM)
    along, across = 0.9 * DIM**0.5 * torch.eye(DIM)[3].view(1, 1, -1), 0.9 * DIM**0.5 * torch.eye(DIM)[4].view(1, 1, -1)
    assert torch.equal(join_once(memory, u, along)[0], join_once(plain, u, along)[0])
    memory.update(*axis(3))
    assert torch.equal(join_once(memory, u, across)[0], join_once(plain, u, across)[0])
    assert (join_once(memory, u, along)[0] - u).norm() < 0.95 * (join_once(plain, u, along)[0] - u).norm()


def test_a_spike_that_comes_back_climbs_the_tiers_once_per_step():
    sketch = make().sketch
    sketch.update(torch.eye(DIM)[[0, 0, 0]], torch.tensor([1.0, 1.0, 1.0]))
    assert (sketch.lives[0], sketch.counts[0]) == (8, 1)
    sketch.update(torch.eye(DIM)[[0, 0, 0]], torch.tensor([2.0, 1.0, 1.0]))
    assert (sketch.lives[0], sketch.counts[0], sketch.strengths[0]) == (64, 2, 2)
    sketch.update(torch.eye(DIM)[[0, 0, 0]], torch.tensor([1.0, 1.0, 1.0]))
    assert sketch.strengths[:32].sum() == 0
    assert (sketch.lives[32], sketch.counts[32], sketch.strengths[32]) == (math.inf, 3, 2)
    for _ in range(1000):
        sketch.update(torch.zeros(4, DIM), torch.zeros(4))
    assert sketch.danger(torch.eye(DIM)[:1].view(1, 1, -1)).item() == 1.0


@pytest.mark.parametrize(("times", "half_life"), [(1, 8), (2, 64)])
def test_danger_halves_in_one_half_life(times, half_life):
    sketch = make().sketch
    for _ in range(times):
        sketch.update(*axis(5, 0.8))
    probe = axis(5)[0].view(1, 1, -1)
    assert sketch.danger(probe).item() == pytest.approx(0.8)
    for _ in range(half_life):
        sketch.update(torch.zeros(1, DIM), torch.zeros(1))
    assert sketch.danger(probe).item() == pytest.approx(0.4)


def test_danger_begins_at_a_cosine_of_seven_tenths():
    sketch = make().sketch
    sketch.update(*axis(0))
    for cosine, danger in ((0.69, 0.0), (0.7, 0.0), (0.85, 0.5), (1.0, 1.0), (-1.0, 0.0)):
        probe = torch.zeros(1, 1, DIM)
        probe[..., 0], probe[..., 1] = cosine, math.sqrt(1 - cosine**2)
        assert sketch.danger(100 * probe).item() == pytest.approx(danger, abs=1e-5)


def test_a_full_ring_gives_up_its_most_faded_entry():
    sketch = make(ring=2).sketch
    sketch.update(*axis(0, 5.0))
    sketch.update(*axis(1, 1.0))
    sketch.update(*axis(2, 1.0))
    assert sketch.directions[:2].argmax(-1).tolist() == [0, 2]


def test_a_full_set_of_centroids_gives_up_the_longest_unused():
    sketch = make(centroids=2).sketch
    for i in (0, 1, 0, 2):
        for _ in range(3):
            sketch.update(*axis(i))
    assert sorted(sketch.directions[32:].argmax(-1).tolist()) == [0, 2]


@pytest.mark.parametrize("training", [True, False])
def test_forward_never_writes(training):
    memory = make().train(training)
    memory.update(*axis(0))
    before = state(memory)
    u, delta = torch.randn(2, 3, DIM), 5 * torch.randn(2, 3, DIM, requires_grad=True)
    join_once(memory, u, delta, None, trace=True)[0].sum().backward()
    join_once(memory, u, delta * math.inf, None)
    assert same(before, state(memory))


def test_proposals_are_the_strongest_tokens_in_training_only_and_of_fixed_size():
    memory = make(top=3)
    u, delta = torch.ones(2, 4, DIM), torch.zeros(2, 4, DIM)
    delta[0, 1, 5], delta[1, 2, 6] = -30.0, 20.0
    seen = join_once(memory, u, delta)[2]
    assert seen["spike_directions"].shape == (3, DIM)
    assert torch.equal(seen["spike_directions"][:2], torch.stack((-torch.eye(DIM)[5], torch.eye(DIM)[6])))
    assert (seen["spike_strengths"] > 0).tolist() == [True, True, False]
    few = join_once(memory, u[:1, :1], delta[:1, 1:2])[2]
    assert few["spike_strengths"].shape == (3,)
    assert (few["spike_strengths"] > 0).tolist() == [True, False, False]
    assert join_once(memory.eval(), u, delta)[2] is None


def test_a_memory_does_not_keep_itself_alive():
    memory = make()
    memory.update(*axis(0))
    u, delta = torch.ones(1, 1, DIM), 0.3 * DIM**0.5 * torch.eye(DIM)[0].view(1, 1, -1)
    assert memory.sketch.danger(delta).item() == 1.0
    assert join_once(memory, u, delta)[2]["spike_strengths"].sum() == 0


def test_the_order_and_the_split_of_a_batch_change_no_memory():
    rng = torch.Generator().manual_seed(2)
    u, delta = torch.randn(8, 5, DIM, generator=rng), 2 * torch.randn(8, 5, DIM, generator=rng)

    def after(batches):
        memory = make()
        seen = [join_once(memory, u[rows], delta[rows])[2] for rows in batches]
        memory.update(*(torch.cat([s[f"spike_{key}"] for s in seen]) for key in ("directions", "strengths")))
        return state(memory)

    whole = after([slice(None)])
    assert whole["sketch.strengths"].count_nonzero() == 4
    assert same(whole, after([torch.randperm(8, generator=rng)]))
    assert same(whole, after([slice(0, 2), slice(2, 7), slice(7, 8)]))


def test_nonfinite_and_empty_candidates_are_dropped():
    directions, strengths = torch.eye(DIM)[:6].clone(), torch.tensor([1.0, math.nan, math.inf, 1.0, 0.0, -1.0])
    directions[0, 1] = math.nan
    directions[3] = 0
    sketch = make(top=6).sketch
    sketch.update(directions, strengths)
    assert sketch.strengths.sum() == 0
    u, delta = torch.ones(1, 3, DIM), torch.full((1, 3, DIM), math.inf)
    assert join_once(make(), u, delta)[2]["spike_strengths"].sum() == 0


def test_save_and_load_restore_the_memory_exactly(tmp_path):
    memory, rng = make(), torch.Generator().manual_seed(3)
    centres = F.normalize(torch.randn(3, DIM, generator=rng), dim=-1)
    for _ in range(6):
        memory.update(*noisy_spikes(rng, centres, 4))
    torch.save(memory.state_dict(), tmp_path / "memory.pt")
    again = make()
    again.load_state_dict(torch.load(tmp_path / "memory.pt", weights_only=True))
    assert same(state(memory), state(again))
    for other in (memory, again):
        other.update(centres, torch.ones(3))
    assert same(state(memory), state(again))


def test_half_precision_models_keep_a_float32_memory():
    memory = make()
    memory.update(*axis(0, 1.2345678))
    before = state(memory)
    memory.to(torch.bfloat16).half()
    assert same(before, state(memory))
    assert all(value.dtype == torch.float32 for value in memory.state_dict().values())
    assert memory.to("meta").sketch.directions.device.type == "meta"


def test_autocast_does_not_lower_the_precision_of_danger():
    memory, rng = make(), torch.Generator().manual_seed(4)
    memory.update(torch.randn(1, DIM, generator=rng), torch.tensor([0.9]))
    delta = memory.sketch.directions[0] + 0.1 * torch.randn(2, 3, DIM, generator=rng)
    expected = memory.sketch.danger(delta)
    assert (expected > 0.3).all()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(memory.sketch.danger(delta), expected)


def test_a_mid_half_life_below_the_short_one_is_refused():
    with pytest.raises(
        ConfigError, match=r"smooth.sketch.mid=4 is below smooth.sketch.short=8.*default: short=8, mid=64"
    ):
        SketchRule(mid=4.0)
    with pytest.raises(ConfigError, match=r"SketchRule.match must be in \[0, 1\), got 1"):
        SpikeSketch(DIM, SketchRule(match=1.0))
