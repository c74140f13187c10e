"""Ten losses of the debug run are what they were when last recorded and reviewed."""

from __future__ import annotations

import hashlib
import json

import pytest

from tests.golden.record import LOSSES, VARIANTS, losses, machine, text

RECORDED = json.loads(LOSSES.read_text())


def test_the_text_is_the_one_recorded():
    assert hashlib.sha256(text().encode()).hexdigest()[:16] == "02666fe45ff859cc"


def test_every_variant_is_recorded():
    assert RECORDED["losses"].keys() == VARIANTS.keys()
    assert all(len(values) == 10 for values in RECORDED["losses"].values())


@pytest.mark.parametrize("name", VARIANTS)
def test_losses_are_as_recorded(name, tmp_path):
    same = all(RECORDED[key] == value for key, value in machine().items())
    found = losses(VARIANTS[name], tmp_path)
    assert found == pytest.approx(RECORDED["losses"][name], rel=1e-6 if same else 1e-4), (
        "the numbers moved: if that is meant, run `just golden` and say in the commit why"
    )


def test_the_variants_differ():
    first, second = RECORDED["losses"].values()
    assert first[-1] < first[0] - 0.5
    assert max(abs(a - b) for a, b in zip(first, second, strict=True)) > 1e-3
