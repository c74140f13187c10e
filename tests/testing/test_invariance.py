"""The eight laws of positions on every option, and that a model which breaks one is caught."""

from __future__ import annotations

import functools
import importlib.util
import math
import re
import sys
from pathlib import Path

import pytest
import torch

from aptlab.config.search_path import read_option_index
from aptlab.errors import AptlabError
from aptlab.testing.invariance import (
    CHANGES,
    LAWS,
    NotOffered,
    Subject,
    judge_value,
    measure_gap,
    measure_law,
    take_worst,
)

FOLDER = Path(__file__).parents[2] / "benchmarks" / "positions"
LAW = {law.name: law for law in LAWS}
ABSOLUTE = {
    "rope=growing",
    "rope=irope",
    "rope=irope_phase",
    "rope=xpos_angle_decay",
    "rope=longrope rope.retained=4",
    "rope=per_layer rope.chunks=[16,null]",
    "embed=learned",
    "embed=sinusoidal",
}


def adapter():
    """benchmarks/positions/aptlab_subject.py, which is no package."""
    spec = importlib.util.spec_from_file_location("aptlab_subject", FOLDER / "aptlab_subject.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


APTLAB = adapter()
made = functools.cache(APTLAB.make)
PLAIN = ("full", "linear", "sliding")  # the others set their arguments


PRESETS = [name for name in APTLAB.names() if name.startswith("attention=") and name.partition("=")[2] not in PLAIN]


@pytest.mark.parametrize(
    "words", [pytest.param(name, marks=pytest.mark.slow) if name in PRESETS else name for name in APTLAB.names()]
)
def test_an_option_holds_all_laws_as_declared(words):
    subject = made(words)
    found = {name: measure_law(subject, law) for name, law in LAW.items()}
    assert {name: str(one) for name, one in found.items() if not one.good} == {}
    assert all(found[name].status == "pass" for name in ("cached", "batched", "shift", "left pad", "packed"))
    assert subject.relative == (words not in ABSOLUTE)
    if not subject.relative:
        assert found["shift"].value > CHANGES
    else:
        assert found["shift"].value < 1e-4  # tighter than the law: no float32 product of position and frequency here


def test_every_option_of_a_group_of_positions_is_measured():
    groups = read_option_index().groups
    expected = {f"{group}={option}" for group in APTLAB.GROUPS for option in groups[group]} - {
        "bias=none",
        "embed=none",
    }
    assert expected | ABSOLUTE <= set(APTLAB.names())
    assert len(expected) > 30


class Broken(Subject):
    """A sound subject with one thing replaced by a wrong one."""

    project, version, name = "test", "0", "broken"

    def __init__(self, words: str = "rope=standard") -> None:
        self.sound = made(words)
        self.relative, self.streams, self.head_dim = self.sound.relative, self.sound.streams, self.sound.head_dim

    def full(self, tokens_BT, *, positions=None, segments=None, length=None):
        return self.sound.full(tokens_BT, positions=positions, segments=segments, length=length)

    def cached(self, tokens_BT, chunks):
        return self.sound.cached(tokens_BT, chunks)

    def cast(self, dtype):
        return self.sound.cast(dtype)

    def scores(self, q_TD, k_TD, positions):
        return self.sound.scores(q_TD, k_TD, positions)

    def exact(self, q_TD, k_TD, positions):
        return self.sound.exact(q_TD, k_TD, positions)

    def relaid(self):
        return self.sound.relaid()


class RestartingCache(Broken):
    """Decoding that rotates every chunk from position 0."""

    def cached(self, tokens_BT, chunks):
        cache, places, begin, parts = self.sound.net.new_cache(*tokens_BT.shape), 0, 0, []
        for size in [chunks[0], *[chunks[-1]] * (tokens_BT.shape[1] - chunks[0])]:
            places = torch.arange(size).unsqueeze(0)
            parts.append(self.sound.net(tokens_BT[:, begin : begin + size], cache=cache, positions=places).logits)
            begin += size
        return torch.cat(parts, dim=1)


class BatchLength(Broken):
    """Rules by length go by the longest row."""

    def full(self, tokens_BT, *, positions=None, segments=None, length=None):
        return super().full(tokens_BT, positions=positions, segments=segments, length=length or tokens_BT.shape[1])


class CastPositions(Broken):
    """Positions that went through the dtype of the model."""

    dtype = torch.float32

    def cast(self, dtype):
        other = CastPositions()
        other.dtype = dtype
        return other

    def scores(self, q_TD, k_TD, positions):
        return super().scores(q_TD, k_TD, positions.to(self.dtype).long())


class Unlabelled(Broken):
    """Says that it is relative, and is not."""

    def __init__(self):
        super().__init__("rope=irope_phase")
        self.relative = True


class DeafToPositions(Broken):
    """Says that it is absolute, and does not read positions."""

    def __init__(self):
        super().__init__()
        self.relative = False

    def full(self, tokens_BT, *, positions=None, segments=None, length=None):
        return self.sound.full(tokens_BT)


class NoSegments(Broken):
    """Sees padding and other documents."""

    def full(self, tokens_BT, *, positions=None, segments=None, length=None):
        return self.sound.full(tokens_BT, positions=positions, length=length)


class UnpermutedLayout(Broken):
    """The other layout with the weights of the first."""

    def relaid(self):
        other = self.sound.relaid()
        other.net.load_state_dict(self.sound.net.state_dict())
        return other


class SinglePrecision(Broken):
    """Angles as float32 products."""

    def scores(self, q_TD, k_TD, positions):
        theta = torch.tensor(self.sound.rope.inv_freq(16), dtype=torch.float32)
        angles = positions.float().unsqueeze(-1) * theta
        q, k = (APTLAB.rotate_by_angles(x, angles, "half").double() for x in (q_TD, k_TD))
        return q @ k.mT / 4


@pytest.mark.parametrize(
    ("subject", "law"),
    [
        (lambda: RestartingCache(), "cached"),
        (lambda: BatchLength("rope=dynamic"), "batched"),
        (lambda: CastPositions(), "bf16"),
        (lambda: Unlabelled(), "shift"),
        (lambda: DeafToPositions(), "shift"),
        (lambda: NoSegments(), "left pad"),
        (lambda: BatchLength("rope=longrope"), "packed"),
        (lambda: NoSegments(), "packed"),
        (lambda: UnpermutedLayout(), "layouts"),
        (lambda: SinglePrecision(), "10M"),
    ],
    ids=["cached", "batched", "bf16", "unlabelled", "deaf", "left pad", "packed length", "packed", "layouts", "10M"],
)
def test_a_broken_model_fails_the_law_that_it_breaks(subject, law):
    broken = subject()
    found = measure_law(broken, LAW[law])
    assert found.status == "FAIL"
    assert measure_law(broken.sound, LAW[law]).status == "pass"
    if law != "shift":
        assert found.value > 100 * LAW[law].limit or found.value > 1


class Faulty(Broken):
    def cached(self, tokens_BT, chunks):
        raise AptlabError("the cache\nhas two lines")

    def cast(self, dtype):
        raise NotOffered("nothing to cast here")

    def full(self, tokens_BT, *, positions=None, segments=None, length=None):
        return super().full(tokens_BT) * (math.nan if segments is not None else 1)


def test_errors_and_what_is_not_offered_are_said():
    faulty = Faulty()
    error = measure_law(faulty, LAW["cached"])
    assert (error.status, error.good, error.reason) == ("error", False, "AptlabError: the cache has two lines")
    missing = measure_law(faulty, LAW["bf16"])
    assert (missing.status, missing.good, str(missing)) == ("n/a", True, "n/a (nothing to cast here)")
    for law in ("batched", "left pad", "packed"):
        assert re.match(r"FAIL nan \(not finite\)", str(measure_law(faulty, LAW[law])))


def test_what_declares_nothing_is_measured_and_not_judged():
    subject = Broken()
    subject.relative = None
    found = judge_value(subject, LAW["shift"], 0.5)
    assert (found.status, found.value, found.good) == ("n/a", 0.5, True)


def test_a_limit_belongs_to_the_pass():
    subject = Broken()
    assert judge_value(subject, LAW["cached"], LAW["cached"].limit).status == "pass"
    assert judge_value(subject, LAW["cached"], 1.01 * LAW["cached"].limit).status == "FAIL"
    assert judge_value(subject, LAW["cached"], math.nan).status == "FAIL"


def test_gap_is_in_standard_deviations_and_sees_what_is_not_finite():
    expected = torch.tensor([0.0, 10.0, 20.0])
    assert measure_gap(expected + torch.tensor([0.0, 5.0, 0.0]), expected) == pytest.approx(0.5)
    assert math.isnan(measure_gap(expected / 0, expected))
    assert math.isnan(take_worst([1.0, math.nan]))
    assert math.isnan(take_worst([math.nan, 1.0]))


def test_laws_are_the_eight_of_the_table():
    assert [law.number for law in LAWS] == list(range(1, 9))
    assert list(LAW) == ["cached", "batched", "bf16", "shift", "left pad", "packed", "layouts", "10M"]
