"""The objective of DyTox: as by hand, what the first task has, and how classes to come are counted."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from tests.reference import dytox as reference

from aptlab.errors import ConfigError
from aptlab.models import GrowingOutput
from aptlab.models.growing import UNKNOWN
from aptlab.objectives import IGNORE, DyToxLoss

KNOWN = [4, 1, 0, 3]  # the first two are older; 2 and 5 are not known yet


def make_output(*, older: int = 2):
    generator = torch.Generator().manual_seed(0)
    logits = torch.full((5, 6), UNKNOWN, dtype=torch.float64)
    known = KNOWN[2 - older :]
    logits[:, known] = torch.randn(5, len(known), generator=generator, dtype=torch.float64)
    divergence = torch.randn(5, 3, generator=generator, dtype=torch.float64) if older else None
    teacher = torch.randn(5, 6, generator=generator, dtype=torch.float64)
    return GrowingOutput(logits, torch.zeros(5, 2), {}, {}, torch.tensor(known), 2, divergence), teacher


@pytest.mark.parametrize("kind", ["bce", "ce"])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_the_loss_is_that_of_the_paper(kind, temperature):
    output, teacher = make_output()
    targets = torch.tensor([4, 3, 0, 1, 3])
    objective = DyToxLoss(loss=kind, temperature=temperature, divergence=0.3)
    found = objective(output, {"targets": targets, "teacher": teacher})["loss"]
    labels = [KNOWN.index(k) for k in targets.tolist()]
    expected = reference.dytox(
        output.logits[:, KNOWN].tolist(),
        teacher[:, KNOWN[:2]].tolist(),
        output.divergence.tolist(),
        *(labels, 2, temperature, 0.3, kind),
    )
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_the_first_task_is_plain_and_parts_can_be_left_out():
    output, _ = make_output(older=0)
    batch = {"targets": torch.tensor([0, 3, 0, 3, IGNORE])}
    parts = DyToxLoss()(output, batch)
    assert set(parts) == {"loss", "loss_new"}
    rows = [reference.binary_cross_entropy(output.logits[i, [0, 3]].tolist(), i % 2) for i in range(4)]
    assert parts["loss"].item() == pytest.approx(sum(rows) / 4, rel=1e-5)
    output, teacher = make_output()
    batch = {"targets": torch.tensor([4, 3, 0, 1, 3]), "teacher": teacher}
    parts = DyToxLoss(distill=False, divergence=0)(output, batch)
    assert set(parts) == {"loss", "loss_new"}


def test_the_teacher_itself_loses_nothing_by_distillation():
    output, _ = make_output()
    kept = DyToxLoss()(output, {"targets": torch.tensor([4] * 5), "teacher": output.logits})["loss_distill"]
    assert kept.item() == pytest.approx(0, abs=1e-7)


def test_a_class_to_come_counts_as_a_guess():
    output, _ = make_output()
    sums = DyToxLoss().sum_losses(output, {"targets": torch.tensor([2, 5, 4, 4, IGNORE])})
    known = -output.logits[2:4, KNOWN].float().log_softmax(-1)[:, 0].double().sum()
    assert sums.tolist() == pytest.approx([2 * math.log(6) + known.item(), 4], rel=1e-6)


def test_a_network_that_does_not_grow_is_refused():
    with pytest.raises(ConfigError, match=r"objective=dytox reads which classes are known, and this network does not"):
        DyToxLoss()(SimpleNamespace(logits=torch.zeros(1, 2), aux={}), {"targets": torch.zeros(1)})
    with pytest.raises(ConfigError, match=r"loss=mse is none of bce, ce"):
        DyToxLoss(loss="mse")  # pyright: ignore[reportArgumentType]
