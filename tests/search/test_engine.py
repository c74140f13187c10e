from __future__ import annotations

import functools
import math
import random

import pytest

from aptlab.errors import ConfigError
from aptlab.search.engine import SearchStart, choose_start, search_factors
from aptlab.search.evaluation_cache import EvaluationCache, SearchJob
from aptlab.search.evolution import begin_population, breed_children, make_iteration_rng
from aptlab.search.seeds import build_v2_seeds, build_v2_space
from aptlab.search.settings import SearchSettings
from aptlab.search.strategies import HalvingStrategy, PublishedStrategy, get_strategy, predict_on_line
from tests.search.problem import GOAL, KNOWN, SAMPLES, SPACE, TARGET, Hidden, starts


def cache(runner) -> EvaluationCache:
    return EvaluationCache(runner, target=TARGET, samples=SAMPLES)


def found(strategy, *, seed: int = 0, iterations: int = 40, runner=None):
    settings = SearchSettings(iterations=iterations)
    return search_factors(starts(), settings=settings, strategy=strategy, cache=cache(runner or Hidden()), seed=seed)


@functools.cache
def found_whole(strategy, seed: int = 0):
    return found(strategy, seed=seed)


def test_the_published_search_costs_what_the_paper_says():
    """64 candidates, then 40 times 32: 1,344 evaluations of all samples."""
    result = found_whole(PublishedStrategy())
    assert result.candidates == 64 + 40 * 32
    assert result.tokens == 1344 * SAMPLES * TARGET
    assert result.iterations == 40


def test_it_beats_every_rule_that_it_started_from():
    known = cache(Hidden()).scores([SPACE.factors(SPACE.nearest(f)) for f in KNOWN.values()])
    assert found_whole(PublishedStrategy()).score < 0.5 * min(known)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_halving_is_as_good_for_a_quarter_of_the_tokens(seed):
    full, quarter = found_whole(PublishedStrategy(), seed), found(HalvingStrategy(), seed=seed)
    assert quarter.tokens <= full.tokens / 4
    assert quarter.score <= 1.05 * full.score


@pytest.mark.parametrize("strategy", [PublishedStrategy(), HalvingStrategy()])
def test_a_seed_decides_everything(strategy):
    assert found(strategy, iterations=5) == found(strategy, iterations=5)
    assert found(strategy, iterations=5).factors != found(strategy, iterations=5, seed=1).factors


def test_the_score_is_the_mean_over_all_samples_of_the_target_length():
    result, hidden = found(HalvingStrategy(), iterations=3), Hidden()
    (values,) = hidden([SearchJob(result.factors, TARGET, tuple(range(SAMPLES)))])
    assert result.score == pytest.approx(sum(values) / SAMPLES)


def test_more_iterations_continue_the_same_search():
    short, long = found(PublishedStrategy(), iterations=3), found(PublishedStrategy(), iterations=6)
    assert long.curve[: len(short.curve)] == short.curve


def test_no_sample_of_a_candidate_is_measured_twice():
    hidden = Hidden()
    found(HalvingStrategy(), iterations=5, runner=hidden)
    seen = [(job.factors, job.length, sample) for job in hidden.calls for sample in job.samples]
    assert len(seen) == len(set(seen))


def test_tokens_are_counted_exactly():
    hidden = Hidden()
    result = found(HalvingStrategy(), iterations=5, runner=hidden)
    assert result.tokens == sum(job.length * len(job.samples) for job in hidden.calls)


@pytest.mark.parametrize("strategy", [PublishedStrategy(), HalvingStrategy()])
def test_a_loss_that_is_not_a_number_is_never_the_best(strategy):
    class Broken(Hidden):
        def value(self, job, sample):
            value = super().value(job, sample)
            return math.nan if job.factors[0] > 1.5 else value

    result = found(strategy, iterations=4, runner=Broken())
    assert math.isfinite(result.score)
    assert result.factors[0] <= 1.5


def test_candidates_that_cannot_win_are_dropped_without_reading_all_samples(monkeypatch):
    monkeypatch.setattr("aptlab.search.strategies.FITTED", 3)
    hidden, rng = Hidden(), random.Random(0)
    ledger = cache(hidden)
    good = [SPACE.factors(SPACE.mutate(SPACE.nearest(GOAL), rng, 0.1)) for _ in range(4)]
    ledger.scores(good)
    bad = SPACE.factors(SPACE.nearest([5.0] * 16))
    HalvingStrategy(keep=1).measure(ledger, [bad], good)
    assert ledger.score(bad) is None
    assert [len(job.samples) for job in hidden.calls if job.factors == bad] == [4]


def test_a_candidate_that_was_left_is_finished_when_it_looks_best():
    ledger, rng = cache(Hidden()), random.Random(0)
    left = SPACE.factors(SPACE.nearest(GOAL))
    ledger.scores([SPACE.factors(SPACE.mutate(SPACE.nearest(GOAL), rng, 0.6)) for _ in range(6)])
    ledger.scores([left], samples=(0, 1))
    bad = [SPACE.factors(SPACE.nearest([4.0 + i / 10] * 16)) for i in range(3)]
    HalvingStrategy().measure(ledger, bad, [left])
    assert ledger.score(left) is not None
    assert all(ledger.score(factors) is None for factors in bad)


def test_what_is_not_complete_is_estimated_from_what_is():
    ledger, rng = cache(Hidden(noise=0.0)), random.Random(0)
    candidates = [SPACE.factors(SPACE.mutate(starts()[0].seeds[2], rng, 0.3)) for _ in range(12)]
    strategy = HalvingStrategy()
    ledger.scores(candidates, length=TARGET // 4, samples=(0, 3, 6))
    ledger.scores(candidates[:6])
    exact = cache(Hidden(noise=0.0)).scores(candidates)
    assert strategy.estimates(ledger, candidates) == pytest.approx(exact)


def test_the_line_through_what_is_known():
    assert predict_on_line(3.0, []) == 3.0
    assert predict_on_line(3.0, [(1.0, 2.0)]) == 4.0
    assert predict_on_line(3.0, [(1.0, 2.0), (2.0, 4.0)]) == pytest.approx(6.0)
    assert predict_on_line(3.0, [(1.0, 4.0), (2.0, 2.0)]) == pytest.approx(3.0 + 0.1 * 1.5)
    assert predict_on_line(math.inf, [(1.0, 2.0), (2.0, 4.0)]) == math.inf


def test_the_real_critical_pair_is_the_one_whose_seeds_score_best():
    expected = build_v2_space(5, pairs=16, scale=8.0, step=0.01)
    goal = expected.factors(build_v2_seeds(expected)[2])

    def distance(jobs):
        values = [sum((math.log(f / g)) ** 2 for f, g in zip(job.factors, goal, strict=True)) for job in jobs]
        return [(value,) * len(job.samples) for job, value in zip(jobs, values)]

    spaces = [build_v2_space(first, pairs=16, scale=8.0, step=0.01) for first in range(2, 9)]
    chosen = choose_start(
        [SearchStart(s, tuple(build_v2_seeds(s))) for s in spaces], PublishedStrategy(), cache(distance)
    )
    assert chosen.space.first == 5


def test_the_watcher_hears_of_every_iteration():
    heard = []
    settings = SearchSettings(population=8, parents=4, iterations=3)
    search_factors(starts(), settings=settings, strategy=PublishedStrategy(), cache=cache(Hidden()), watch=heard.append)
    assert [state.iteration for state in heard] == [0, 1, 2, 3]
    scores = [state.best.score for state in heard]
    assert scores == sorted(scores, reverse=True)


def test_children_are_new_and_as_many_as_asked_for():
    rng = random.Random(0)
    settings = SearchSettings()
    first = begin_population(settings, SPACE, starts()[0].seeds, rng)
    children = breed_children(settings, SPACE, first[:32], set(first), rng)
    assert len(first) == len(set(first)) == 64
    assert len(children) == len(set(children)) == 32
    assert not set(children) & set(first)


def test_random_numbers_do_not_depend_on_the_version_of_python():
    assert make_iteration_rng(0, 1).random() == 0.803078147739193


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"parents": 65}, r"^parents=65 is more than population=64; published: 32 of 64"),
        ({"mutations": 0, "crossovers": 0}, r"^mutations=0 with crossovers=0 makes no new candidates"),
        ({"population": 0}, r"^population must be a finite number >= 1"),
        ({"probability": 2.0}, r"^probability must be in \[0, 1\]"),
    ],
)
def test_impossible_sizes_are_refused(wrong, message):
    with pytest.raises(ConfigError, match=message):
        SearchSettings(**wrong)


def test_an_unknown_strategy_is_named():
    with pytest.raises(ConfigError, match=r"^strategy=halvign: no such strategy; did you mean halving"):
        get_strategy("halvign")


@pytest.mark.parametrize(
    ("given", "brood"),
    [
        ({}, (32, 16, 16)),
        ({"population": 8}, (4, 2, 2)),
        ({"population": 1}, (1, 1, 1)),
        ({"population": 8, "parents": 3, "crossovers": 0}, (3, 2, 0)),
    ],
)
def test_sizes_of_a_generation_follow_the_population(given, brood):
    settings = SearchSettings(**given)
    assert tuple(settings.brood) == brood
    assert settings.plain()["parents"] == brood[0]
