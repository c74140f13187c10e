"""Idle threads sleep, unless the user decided otherwise."""

from __future__ import annotations

import pytest

from aptlab.device import threads


@pytest.mark.parametrize(("load", "spin"), [(0.1, "10000"), (0.9, "0")])
def test_spinning_depends_on_how_busy_the_machine_is(load, spin, monkeypatch):
    monkeypatch.setattr(threads, "measure_cpu_load", lambda: load)
    environment: dict[str, str] = {}
    threads.limit_idle_spin(environment)
    assert environment == {"GOMP_SPINCOUNT": spin}


@pytest.mark.parametrize("name", threads.CHOICES)
def test_a_users_own_setting_stays(name):
    environment = {name: "3"}
    threads.limit_idle_spin(environment)
    assert environment == {name: "3"}


def test_the_load_is_a_number():
    assert threads.measure_cpu_load() >= 0
