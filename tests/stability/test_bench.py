"""The bench of stability: intervals and measures by hand, stresses, and a journal that goes on."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from aptlab.callbacks.guard import NonFiniteGuard
from aptlab.commands.bench import read_bench_request
from aptlab.errors import ConfigError
from aptlab.objectives import IGNORE
from aptlab.report.statistics import compute_bootstrap_interval, compute_wilson_interval
from aptlab.stability.probe import StabilityProbe, find_first_bad, measure_spikes
from aptlab.stability.runner import run_stability
from aptlab.stability.settings import STRESSES, StabilitySettings, Trial, list_trials
from aptlab.stability.stresses import StressCallback, spoil_batch
from aptlab.stability.summarize import label_methods, summarize_stress
from tests.helpers import Rows, task, trainer


def test_wilsons_interval_is_the_root_of_its_equation():
    """Ends p solve |share - p| = z sqrt(p (1 - p) / n); none of 20 still leaves a sixth."""
    for hits, tries in ((0, 20), (3, 10), (7, 7), (50, 100)):
        low, high = compute_wilson_interval(hits, tries)
        for end in (low, high):
            if 0 < end < 1:
                assert abs(hits / tries - end) == pytest.approx(1.959964 * math.sqrt(end * (1 - end) / tries), rel=1e-6)
        assert 0 <= low <= hits / tries <= high <= 1
    assert compute_wilson_interval(0, 20)[1] == pytest.approx(0.1611, abs=1e-3)
    assert compute_wilson_interval(0, 0) == (0.0, 1.0)


def test_the_bootstrap_interval_is_that_of_the_mean():
    draw = torch.randn(200, generator=torch.Generator().manual_seed(0)).tolist()
    low, high = compute_bootstrap_interval(draw, draws=4000)
    mean, error = sum(draw) / 200, torch.tensor(draw).std().item() / math.sqrt(200)
    assert low == pytest.approx(mean - 1.96 * error, abs=0.02)
    assert high == pytest.approx(mean + 1.96 * error, abs=0.02)
    assert compute_bootstrap_interval(draw, draws=4000) == (low, high)
    assert compute_bootstrap_interval([0.5, 0.5]) == (0.5, 0.5)


def test_a_spike_is_seven_deviations_above_the_window_before_it():
    calm = [1.0, 1.1, 0.9, 1.0, 1.05, 0.95]
    assert measure_spikes([*calm, 1.2], 6) == 0
    assert measure_spikes([*calm, 9.0, 1.0], 6) == 0.5
    assert measure_spikes([*calm, math.nan], 6) == 1
    assert measure_spikes(calm, 6) == 0


def test_the_first_bad_step_is_named_and_a_scalers_overflow_is_none():
    assert find_first_bad([1.0, 2.0], [1.0, math.inf], scaled=False) == 2
    assert find_first_bad([1.0, 2.0], [1.0, math.inf], scaled=True) is None
    assert find_first_bad([math.nan], [1.0], scaled=True) == 1


def fit(name: str, steps: int = 4):
    module, probe = task(), StabilityProbe()
    torch.manual_seed(0)
    callbacks = [StressCallback(name, every=2), NonFiniteGuard(), probe]
    trainer(max_steps=steps, limit_val_batches=0, callbacks=callbacks).fit(module, Rows(batch=8, context=32))
    return probe.summarize(steps, scaled=False)


def test_stresses_disturb_what_they_are_named_after():
    calm, others = fit("rate"), {name: fit(name) for name in ("branch", "embedding", "gradient", "data")}
    assert calm["bad"] is None
    assert calm["logit"] is not None
    assert calm["peak"] > 0
    assert others["branch"]["peak"] > 3 * calm["peak"]
    assert others["embedding"]["peak"] > 10 * calm["peak"]
    for numbers in others.values():
        assert (numbers["peak"], numbers["best"]) != (calm["peak"], calm["best"])


def test_spoilt_rows_are_an_ngram_and_a_shuffle_and_targets_follow():
    text = torch.arange(18).view(2, 9)
    batch = {"tokens": text[:, :-1].clone(), "targets": text[:, 1:].clone()}
    batch["targets"][1, 3] = IGNORE
    torch.manual_seed(0)
    spoil_batch(batch)
    assert batch["tokens"][0].tolist() == [0, 1, 2, 3] * 2
    assert batch["targets"][0].tolist() == [1, 2, 3, 0] * 2
    assert batch["targets"][1, 3] == IGNORE
    shuffled = [*batch["tokens"][1].tolist(), int(batch["targets"][1, -1])]
    assert sorted(shuffled) == list(range(9, 18)) != shuffled


METHODS = [("smooth=none", "context=32"), ("smooth=left_spin", "context=32")]
SETTINGS = StabilitySettings(rates=(1.0, 10.0), tune=(0.5, 1.0), seeds=2)


def pretend(calls):
    """A training whose loss is known: the second method is 0.1 better, and the first breaks at ten times its rate."""

    def train(trial: Trial, rate: float):
        calls.append(trial.key)
        first = trial.method == METHODS[0]
        bad = 7 if first and trial.multiple == 10 else None
        loss = 2.0 + 0.01 * trial.seed + abs(trial.multiple - 1) * 0.01 - (0.0 if first else 0.1)
        numbers = {"skipped": 0.0, "spikes": 0.0, "norm_spikes": 0.0, "start": 4.0, "best": loss, "peak": 3.0}
        numbers |= {"beyond_fp16": 0.0, "beyond_e4m3": 0.0, "logit": 1.0, "seconds": 0.01}
        size = {"parameters": 10, "flops": 60, "steps": 5, "rate": rate * trial.multiple}
        return {"bad": bad, "final": None if bad else loss, **numbers, **size}

    return train


def test_a_bench_tunes_trains_goes_on_and_writes_its_tables(tmp_path):
    calls: list[str] = []
    settings = replace(SETTINGS, out=str(tmp_path / "bench"))
    early = run_stability(METHODS, replace(settings, seconds=1e-9), pretend(calls))
    assert "left; the same command goes on" in early[-1]
    assert calls == []
    lines = run_stability(METHODS, settings, pretend(calls))
    assert len(calls) == len(set(calls)) == 2 * 2 + 2 * 2 * 2
    again = list(calls)
    assert run_stability(METHODS, settings, pretend(calls)) == lines
    assert calls == again
    assert "stress: rate" in lines[0]
    assert {path.name for path in (tmp_path / "bench").iterdir()} == {"journal.jsonl", "stability.md", "rate.png"}
    written = (tmp_path / "bench" / "stability.md").read_text()
    assert "| smooth=none | fp32 | 2/4 | 15% to 85% | 7 |" in written
    run_stability([*METHODS, ("smooth=granite", "context=32")], settings, pretend(calls))
    assert len(calls) == len(again) + 2 + 4


def test_a_row_holds_the_measures_of_the_protocol():
    train = pretend([])
    records = []
    for trial in list_trials(METHODS, SETTINGS):
        place = {name: getattr(trial, name) for name in ("stress", "precision", "multiple", "seed")}
        records.append({"method": list(trial.method), **place, **train(trial, 1.0)})
    first, second = summarize_stress(records, "rate")
    assert (first.bad, first.trials, first.time_to_bad) == (2, 4, 7)
    assert first.final == {1.0: pytest.approx(2.005), 10.0: None}
    assert first.area == pytest.approx((2.005 + 4.0) / 2)  # a broken training learned nothing: its first loss
    assert first.sensitivity == pytest.approx(first.area - 2.005)
    assert first.difference is None
    mean, low, high = second.difference
    assert mean == pytest.approx(second.area - first.area)
    assert low <= mean <= high < 0
    assert label_methods([tuple(m) for m in METHODS]) == ["smooth=none", "smooth=left_spin"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["stabilty"], "aptlab bench stabilty: no such bench; did you mean stability"),
        (["stability", "bench.stress=brunch"], "bench.stress=brunch; did you mean branch"),
        (["stability", "bench.precisions=fp8"], "bench.precisions=fp8"),
        (["stability", "bench.seed=3"], "bench.seed: bench has no such value; did you mean seeds"),
        (["stability", "bench.rates=1,x"], "bench.rates=1,x: is no number"),
        (["stability", "bench.rates=0"], r"bench.rates=\[0.0\]: multiples of a rate are above 0"),
        (["stability", "bench.seeds=0"], "seeds must be"),
        (["stability", "optim.lr=1"], "optim.lr: bench sets it in every trial"),
        (["stability", "smooth=nope"], "smooth=nope"),
        (["stability", "bench.precisions=fp16", "device=cpu"], "precision=16-mixed needs a GPU"),
    ],
)
def test_what_is_wrong_is_told_before_anything_trains(args, message):
    with pytest.raises(ConfigError, match=message):
        read_bench_request(args)


def test_every_combination_of_overrides_is_a_method():
    methods, settings = read_bench_request(
        [
            "stability",
            "-m",
            "smooth=none,left_spin",
            "callbacks=[default],[default,adagc]",
            "bench.rates=1,3",
            "bench.seeds=1",
        ]
    )
    assert len(methods) == 4
    assert settings.rates == (1.0, 3.0)
    assert len(list(list_trials(methods, settings))) == 8
    assert set(settings.stress) <= set(STRESSES)


@pytest.mark.slow
def test_a_real_trial_of_every_stress_has_every_number(tmp_path, monkeypatch):
    from aptlab.stability.trial import run_trial

    monkeypatch.chdir(tmp_path)
    small = ("trainer.max_steps=10", "context=32", "data.batch=4", "device=cpu", "data.val_batches=1")
    methods, settings = read_bench_request(
        ["stability", *small, f"bench.stress={','.join(STRESSES)}", "bench.rates=1", "bench.tune=1", "bench.seeds=1"]
    )
    seen: list[dict[str, object]] = []

    def train(trial, rate):
        seen.append(run_trial(trial, rate))
        return seen[-1]

    lines = run_stability(methods, settings, train)
    assert len(seen) == 1 + len(STRESSES)
    assert all(numbers["final"] is not None and numbers["bad"] is None for numbers in seen)
    assert all(numbers["parameters"] == seen[0]["parameters"] and numbers["flops"] for numbers in seen)
    assert [line for line in lines if line.startswith("stress: beta2")]
