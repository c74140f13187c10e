"""The rows of the benchmark of memories ask each fact once, and a run and its table are whole."""

from __future__ import annotations

import pytest
import torch

from aptlab.objectives import IGNORE

WINDOWS, WINDOW = 4, 64


@pytest.mark.parametrize("name", ["recall", "passkey", "copy"])
def test_each_fact_of_the_first_window_is_asked_once(load_benchmark, name):
    script = load_benchmark("memory_tiers")
    task = script.TASKS[name]
    batch = task.make_batch(3, windows=WINDOWS, window=WINDOW, seed=(0, 1))
    again = task.make_batch(3, windows=WINDOWS, window=WINDOW, seed=(0, 1))
    assert all(torch.equal(batch[key], again[key]) for key in batch)
    size, count = 1 + task.values, task.asked * WINDOWS
    area = WINDOW - task.asked * size
    for tokens, targets in zip(batch["tokens"].tolist(), batch["targets"].tolist(), strict=True):
        starts = [place for place in range(area) if tokens[place] < script.KEYS]
        facts = {tokens[place]: tokens[place + 1 : place + size] for place in starts}
        assert len(facts) == count
        asked = []
        for number in range(WINDOWS):
            for place in range((number + 1) * WINDOW - task.asked * size, (number + 1) * WINDOW, size):
                asked.append(tokens[place])
                assert targets[place : place + task.values] == facts[tokens[place]]
                assert tokens[place + 1 : place + size] == facts[tokens[place]]
        assert sorted(asked) == sorted(facts)
        assert sum(target != IGNORE for target in targets) == count * task.values
    assert int(batch["tokens"].max()) < script.VOCAB


def parse(script, monkeypatch, *words: str):
    monkeypatch.setattr("sys.argv", ["memory_tiers.py", *words])
    return script.parse()


def test_the_table_says_what_memory_is_worth(load_benchmark, monkeypatch):
    script = load_benchmark("memory_tiers")
    args = parse(script, monkeypatch, "--arms", "none", "xl")
    record = {"task": "recall", "setting": script.describe_setting(args), "parameters": 1000, "rate": 5000.0}
    record |= {"inside": 0.9, "nats": 1.0, "bytes": 2048.0, "machine": "a machine"}
    records = [
        {**record, "arm": arm, "seed": seed, "beyond": base + 0.01 * seed}
        for arm, base in (("none", 0.03), ("xl", 0.53))
        for seed in range(3)
    ]
    table = script.format_task("recall", records, args)
    assert "| xl     | 1,000      | 90.0 ± 0.0      | 54.0 ± 2.5" in table
    assert "+50.0 ± 0.0" in table
    assert "measured on a machine" in table
    assert "diverged" in script.format_interval([float("nan")])


@pytest.mark.slow
def test_arms_have_the_same_parameters_and_a_run_is_a_record(load_benchmark, monkeypatch):
    script = load_benchmark("memory_tiers")
    words = ["--steps", "2", "--batch", "2", "--dim", "16", "--depth", "1", "--arms", script.NONE, script.LINEAR]
    args = parse(script, monkeypatch, *words)
    records = [script.measure_job((args, "recall", arm, 0)) for arm in args.arms]
    sizes = [record["parameters"] for record in records]
    assert max(sizes) - min(sizes) <= 3 * 16
    assert records[0]["bytes"] == 0 < records[1]["bytes"]
    assert all(0 <= record["beyond"] <= 1 for record in records)
