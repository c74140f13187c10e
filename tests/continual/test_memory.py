"""What buffers hold: uniform, mergeable, and as references written from the papers have it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chi2

from aptlab.continual.herding import rank_by_herding
from aptlab.continual.keys import draw_keys
from aptlab.continual.memory import KeyedMemory, Offer
from aptlab.continual.policies import Balanced, Herding, Policy, Reservoir, Ring
from aptlab.errors import CheckpointError
from tests.reference import continual as reference

STREAMS, LENGTH, CAPACITY = 2_000, 60, 12


def make_offer(policy: Policy, numbers: np.ndarray, groups: np.ndarray, seed: int = 0) -> Offer:
    kept = groups if policy.grouped_by else np.zeros_like(groups)
    return Offer(numbers, 1000 + numbers, kept, policy.make_keys(numbers, seed=seed))


def fill(policy: Policy, numbers, groups, *, capacity: int = CAPACITY, seed: int = 0, size: int = 7) -> KeyedMemory:
    """One memory that was offered the stream in batches."""
    memory = KeyedMemory(capacity)
    for begin in range(0, len(numbers), size):
        part = slice(begin, begin + size)
        memory.add(make_offer(policy, numbers[part], groups[part], seed))
    return memory


def held(memory: KeyedMemory) -> list[int]:
    return memory.list_samples().numbers.tolist()


def test_keys_are_those_of_the_reference():
    found = draw_keys(11, np.arange(50))
    assert found.tolist() == [reference.splitmix(reference.splitmix(11) ^ number) for number in range(50)]


def test_a_reservoir_is_uniform_over_two_thousand_streams():
    """Chi-square over how often each number of a stream is held, and over pairs of numbers."""
    numbers, groups = np.arange(LENGTH), np.zeros(LENGTH, dtype=np.int64)
    counts, together = np.zeros(LENGTH), 0
    for seed in range(STREAMS):
        kept = held(fill(Reservoir(), numbers, groups, seed=seed, size=LENGTH))
        assert len(kept) == CAPACITY
        counts[kept] += 1
        together += {0, LENGTH - 1} <= set(kept)
    share = CAPACITY / LENGTH
    # Each stream holds exactly CAPACITY: the variance is smaller than a Bernoulli's by (n - k) / n · n / (n - 1).
    statistic = ((counts - STREAMS * share) ** 2).sum() / (STREAMS * share * (1 - share)) * (LENGTH - 1) / LENGTH
    low, high = chi2.ppf([1e-4, 1 - 1e-4], LENGTH - 1)
    assert low < statistic < high
    pairs = STREAMS * share * (CAPACITY - 1) / (LENGTH - 1)
    assert abs(together - pairs) < 4 * pairs**0.5


def test_keys_of_two_thousand_long_streams_are_uniform():
    """The same, vectorised over keys alone, for streams of 5,000."""
    keys = draw_keys(np.arange(STREAMS)[:, None], np.arange(5_000)[None, :])
    counts = np.bincount(np.argpartition(keys, 50, axis=1)[:, :50].ravel() // 100, minlength=50)
    statistic = ((counts - 2_000) ** 2 / 2_000).sum()
    assert chi2.ppf(1e-4, 49) < statistic < chi2.ppf(1 - 1e-4, 49)


@pytest.mark.parametrize("policy", [Reservoir(), Balanced(), Ring()], ids=lambda policy: type(policy).__name__)
@pytest.mark.parametrize("shards", [2, 5])
def test_memories_of_shards_merge_to_that_of_one_stream(policy, shards):
    rng = np.random.default_rng(shards)
    for seed in range(20):
        numbers = np.arange(200)
        groups = np.sort(rng.integers(0, 5, 200))
        owner = rng.integers(0, shards, 200)
        parts = [fill(policy, numbers[owner == s], groups[owner == s], capacity=13, seed=seed) for s in range(shards)]
        whole = fill(policy, numbers, groups, capacity=13, seed=seed)
        assert held(parts[0].merge(parts[1:])) == held(whole)


@pytest.mark.parametrize("policy", [Reservoir(), Balanced(), Ring()], ids=lambda policy: type(policy).__name__)
@pytest.mark.parametrize("capacity", [1, 3, 10, 64])
def test_what_is_held_equals_the_reference_at_every_time(policy, capacity):
    rng = np.random.default_rng(capacity)
    numbers, groups = np.arange(150), rng.permutation(np.repeat([4, 0, 2, 9, 7], 30))
    memory, stream = KeyedMemory(capacity), []
    for begin in range(0, 150, 10):
        part = slice(begin, begin + 10)
        offer = make_offer(policy, numbers[part], groups[part])
        memory.add(offer)
        stream += zip(offer.numbers.tolist(), offer.groups.tolist(), offer.keys.tolist())
        assert held(memory) == reference.hold_smallest(stream, capacity)


def test_a_ring_holds_the_latest_of_each_task():
    assert held(fill(Ring(), np.arange(30), np.repeat([0, 1, 2], 10), capacity=6)) == [8, 9, 18, 19, 28, 29]


def test_a_sample_keeps_its_slot_and_new_ones_are_told():
    policy, memory, slots = Reservoir(), KeyedMemory(8), {}
    for begin in range(0, 100, 5):
        numbers = np.arange(begin, begin + 5)
        taken, positions = memory.add(make_offer(policy, numbers, np.zeros(5, dtype=np.int64)))
        slots |= dict(zip(taken.tolist(), numbers[positions].tolist()))
        assert memory.get_rows(memory.sort_slots()).tolist() == [1000 + n for n in held(memory)]
        assert [slots[slot] for slot in memory.sort_slots().tolist()] == held(memory)


@pytest.mark.parametrize("policy", [Reservoir(), Balanced(), Ring()], ids=lambda policy: type(policy).__name__)
def test_a_memory_goes_on_from_its_state(policy):
    numbers, groups = np.arange(120), np.repeat([0, 1, 2], 40)
    whole, part = fill(policy, numbers, groups), fill(policy, numbers[:70], groups[:70])
    other = KeyedMemory(CAPACITY)
    other.load_state(part.state())
    for begin in range(70, 120, 7):
        where = slice(begin, begin + 7)
        other.add(make_offer(policy, numbers[where], groups[where]))
    assert held(other) == held(whole)


def test_a_state_with_more_samples_than_places_is_refused():
    with pytest.raises(
        CheckpointError, match=r"slots up to 12, and replay.capacity is now 5; resume with the capacity"
    ):
        KeyedMemory(5).load_state(fill(Reservoir(), np.arange(60), np.zeros(60, dtype=np.int64)).state())


def test_draws_take_every_sample_before_any_a_second_time_and_ranks_share_one_draw():
    memory = fill(Reservoir(), np.arange(60), np.zeros(60, dtype=np.int64))
    whole = memory.draw_slots(np.arange(30), seed=3, number=5)
    assert sorted(whole[:12]) == sorted(whole[12:24]) == sorted(memory.sort_slots())
    assert len(set(whole[24:])) == 6
    halves = [memory.draw_slots(np.arange(15) + 15 * rank, seed=3, number=5) for rank in (0, 1)]
    assert np.concatenate(halves).tolist() == whole.tolist()
    assert memory.draw_slots(np.arange(30), seed=3, number=6).tolist() != whole.tolist()
    assert len(KeyedMemory(4).draw_slots(np.arange(3), seed=0, number=0)) == 0


def test_draws_are_uniform():
    memory = fill(Reservoir(), np.arange(60), np.zeros(60, dtype=np.int64))
    drawn = np.concatenate([memory.draw_slots(np.arange(3), seed=1, number=number) for number in range(4_000)])
    counts = np.bincount(drawn, minlength=12)
    assert ((counts - 1_000) ** 2 / 1_000).sum() < chi2.ppf(1 - 1e-4, 11)


def test_only_the_share_of_a_stream_that_belongs_in_is_placed(monkeypatch):
    """So that a sample takes O(1) on average: about c (1 + ln n/c) of n are placed, the rest cost one comparison."""
    placed = 0
    place = KeyedMemory._place

    def count(self, offer, position):
        nonlocal placed
        placed += 1
        return place(self, offer, position)

    monkeypatch.setattr(KeyedMemory, "_place", count)
    numbers = np.arange(20_000)
    fill(Reservoir(), numbers, np.zeros_like(numbers), capacity=100, size=50)
    expected = 100 * (1 + np.log(20_000 / 100))
    assert placed < 1.3 * expected + 50


@pytest.mark.parametrize("normalize", [True, False])
def test_herding_is_that_of_the_paper(normalize):
    features = np.random.default_rng(1).normal(1.0, 2.0, (25, 4))
    assert rank_by_herding(features, 12, normalize=normalize).tolist() == reference.herd(
        features.tolist(), 12, normalize
    )


def test_herding_keeps_the_first_of_its_ranking_when_groups_come():
    rng = np.random.default_rng(0)
    policy, memory, orders = Herding(by="task", most=12), KeyedMemory(CAPACITY), []
    for task in range(3):
        features, numbers = rng.normal(size=(20, 5)), np.arange(20) + 20 * task
        keys = policy.make_keys(numbers, seed=0, features=features)
        memory.add(Offer(numbers, numbers, np.full(20, task), keys))
        orders.append(numbers[reference.herd(features.tolist(), 12, True)])
    assert held(memory) == sorted(number for order in orders for number in order[:4].tolist())
