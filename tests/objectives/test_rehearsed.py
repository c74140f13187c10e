"""Objectives that remember: equal to the papers' equations, and to their base where there is nothing to remember."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from tests.reference import continual as reference
from torch import Tensor

from aptlab.errors import ConfigError
from aptlab.objectives import (
    IGNORE,
    CrossEntropy,
    DarkExperience,
    Elastic,
    ElasticWeights,
    LearningWithoutForgetting,
    NextToken,
    Objective,
)


class Given(NamedTuple):
    logits: Tensor
    aux: dict[str, Tensor] = {}


def draw(rows: int, classes: int = 5, seed: int = 0) -> tuple[Given, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, classes, generator=generator, dtype=torch.float64)
    targets = torch.randint(classes, (rows,), generator=generator)
    return Given(logits), {"targets": targets, "ids": torch.arange(rows)}


def test_cross_entropy_of_tokens_is_that_of_the_next_token():
    logits, targets = torch.randn(3, 4, 7), torch.randint(7, (3, 4))
    targets[1, 2] = IGNORE
    batch = {"targets": targets}
    mine, other = (kind().compute_parts(Given(logits), batch, rows=True) for kind in (CrossEntropy, NextToken))
    torch.testing.assert_close(mine["loss"], other["loss"])
    torch.testing.assert_close(mine["rows"], other["rows"])
    torch.testing.assert_close(*(kind().sum_losses(Given(logits), batch) for kind in (CrossEntropy, NextToken)))


def test_dark_experience_is_equation_6():
    output, batch = draw(9)
    stored = torch.randn(2, 5, dtype=torch.float64)
    batch |= {"memory": torch.tensor([3, 2]), "logits": stored}
    found = DarkExperience(base=CrossEntropy(), alpha=0.3, beta=0.7)(output, batch)
    rows, targets = output.logits.tolist(), batch["targets"].tolist()
    expected = reference.der_pp(
        (rows[:4], targets[:4]), (rows[4:7], targets[4:7]), rows[7:], stored.tolist(), alpha=0.3, beta=0.7
    )
    assert found["loss"].item() == pytest.approx(expected, rel=1e-6)
    assert found["loss_new"].item() == pytest.approx(reference.cross_entropy(rows[:4], targets[:4]), rel=1e-6)


def test_learning_without_forgetting_is_equations_2_to_4():
    output, batch = draw(4)
    teacher = torch.randn(4, 5, dtype=torch.float64)
    batch |= {"teacher": teacher, "kept": torch.tensor([0, 3, 4])}
    found = LearningWithoutForgetting(base=CrossEntropy(), weight=0.5, temperature=2.0)(output, batch)
    expected = reference.lwf(
        output.logits.tolist(), batch["targets"].tolist(), teacher.tolist(), [0, 3, 4], weight=0.5, temperature=2.0
    )
    assert found["loss"].item() == pytest.approx(expected, rel=1e-6)


def test_elastic_weights_are_equation_3():
    output, batch = draw(4)
    weights, anchors, fisher = [0.5, -1.0], [0.0, 1.0], [2.0, 0.25]
    penalty = sum(f * (w - a) ** 2 for w, a, f in zip(weights, anchors, fisher))
    found = ElasticWeights(base=CrossEntropy(), weight=10.0)(output, {**batch, "penalty": torch.tensor(penalty)})
    loss = reference.cross_entropy(output.logits.tolist(), batch["targets"].tolist())
    assert found["loss"].item() == pytest.approx(reference.ewc(loss, weights, anchors, fisher, 10.0), rel=1e-6)


@pytest.mark.parametrize("kind", [DarkExperience, LearningWithoutForgetting, ElasticWeights])
def test_without_anything_to_remember_each_is_its_base(kind):
    output, batch = draw(6)
    made, base = kind(base=CrossEntropy()), CrossEntropy()
    torch.testing.assert_close(made(output, batch), base(output, batch))
    torch.testing.assert_close(made.sum_losses(output, batch), base.sum_losses(output, batch))
    assert made.count_targets(batch) == 6


class Hidden(CrossEntropy):
    needs = "hidden"


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: DarkExperience(base=CrossEntropy(), alpha=-1.0), r"alpha must be a finite number >= 0, got -1.0"),
        (lambda: ElasticWeights(base=CrossEntropy(), decay=-0.5), r"decay must be a finite number >= 0, got -0.5"),
        (lambda: DarkExperience(base=Elastic()), r"base=Elastic runs the network in a way .* and DarkExperience comp"),
        (lambda: LearningWithoutForgetting(base=Hidden()), r"base=Hidden reads no logits, which old knowledge is comp"),
    ],
)
def test_what_is_no_objective_is_refused(make: Any, told: str):
    with pytest.raises(ConfigError, match=told):
        make()


def test_an_objective_remembers_nothing_by_itself():
    assert (Objective.replays, Objective.remembers) == (("targets",), "nothing")
