"""Training several widths of one network in one step."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

import pytest
import torch
from tests.helpers import FewRows, Given, Rows, task, trainer
from tests.reference import matformer as reference

from aptlab.errors import ConfigError
from aptlab.models.cost import estimate_cost
from aptlab.nn.ffn import MatFormer, SwiGLU
from aptlab.objectives import (
    IGNORE,
    CrossEntropy,
    DarkExperience,
    DyToxLoss,
    Elastic,
    ElasticWeights,
    LearningWithoutForgetting,
    MeanWidths,
    NextToken,
    SampleWidth,
    SandwichWidths,
    SumWidths,
)
from aptlab.objectives.elastic import compute_prediction_divergence
from aptlab.objectives.widths import draw_share
from aptlab.optim import AdamW, Cosine
from aptlab.tasks import LanguageTask

WIDTHS = (1.0, 0.5, 0.25, 0.125)
NESTED = partial(SwiGLU, nested=MatFormer())
BATCH = Rows(batch=2).row(0)


def make(objective: Any = None) -> LanguageTask:
    net = task(ffn=NESTED).net
    return LanguageTask(net, optim=AdamW(lr=1e-2), schedule=Cosine(), objective=objective or Elastic())


def gradients(module: LanguageTask, loss: Any) -> list[torch.Tensor]:
    return list(torch.autograd.grad(loss, list(module.parameters())))


def chosen(strategy: Any, step: int, *, seed: int = 0, widths: tuple[float, ...] = WIDTHS) -> tuple[float, ...]:
    return strategy.choose_widths(widths, partial(draw_share, seed, step))


def test_the_gradient_of_the_sum_is_the_sum_of_the_gradients():
    module = make()
    single = [gradients(module, NextToken()(module(BATCH, width=width), BATCH)["loss"]) for width in module.net.widths]
    together = gradients(module, module.training_step(BATCH, 0)["loss"])
    for parts, found in zip(zip(*single, strict=True), together, strict=True):
        assert torch.allclose(found, sum(parts), atol=1e-6, rtol=1e-5)


def test_the_mean_is_a_fourth_of_the_sum_and_parts_tell_each_width():
    sums, means = make(), make(Elastic(strategy=MeanWidths()))
    total, mean = (module.training_step(BATCH, 0)["loss"].item() for module in (sums, means))
    assert total == pytest.approx(4 * mean, rel=1e-6)
    parts = sums.step_state.parts
    assert list(parts) == ["loss@1", "loss@0.5", "loss@0.25", "loss@0.125"]
    assert sum(parts.values()).item() == pytest.approx(total, rel=1e-6)
    assert parts["loss@1"].item() == NextToken()(sums(BATCH), BATCH)["loss"].item()


@pytest.mark.parametrize("strategy", [SumWidths(), SampleWidth(), SandwichWidths(random=1)])
def test_widths_are_a_function_of_seed_and_step(strategy):
    steps = [[chosen(strategy, step, seed=seed) for step in range(50)] for seed in (0, 0, 1)]
    assert steps[0] == steps[1]
    assert (steps[0] == steps[2]) == isinstance(strategy, SumWidths)
    assert all(list(one) == sorted(one, reverse=True) for one in steps[0])


def test_a_width_is_drawn_as_often_as_its_probability_says():
    shares = (0.1, 0.2, 0.3, 0.4)
    counts = Counter(chosen(SampleWidth(probabilities=shares), step)[0] for step in range(4000))
    assert [counts[width] / 4000 for width in WIDTHS] == pytest.approx(shares, abs=0.03)
    even = Counter(chosen(SampleWidth(), step)[0] for step in range(4000))
    assert [even[width] / 4000 for width in WIDTHS] == pytest.approx([0.25] * 4, abs=0.03)
    assert {chosen(SampleWidth(probabilities=(0, 1, 0, 0)), step) for step in range(99)} == {(0.5,)}


def test_a_sandwich_has_both_ends_and_others_without_putting_back():
    widths = (1.0, 0.8, 0.6, 0.4, 0.2)
    rows = [chosen(SandwichWidths(random=2), step, widths=widths) for step in range(3000)]
    assert all(len(row) == 4 and row[0] == 1.0 and row[-1] == 0.2 for row in rows)
    counts = Counter(width for row in rows for width in row)
    expected = SandwichWidths(random=2).expect_passes(widths)
    assert expected == {1.0: 1.0, 0.8: 2 / 3, 0.6: 2 / 3, 0.4: 2 / 3, 0.2: 1.0}
    assert [counts[width] / 3000 for width in widths] == pytest.approx(list(expected.values()), abs=0.03)
    assert chosen(SandwichWidths(random=9), 0) == WIDTHS
    assert chosen(SandwichWidths(), 0, widths=(1.0, 0.5)) == (1.0, 0.5)


def test_the_full_width_teaches_the_others_and_learns_nothing_from_them():
    logits = torch.randn(2, 3, 7), torch.randn(2, 3, 7)
    targets = torch.tensor([[1, 2, IGNORE], [3, IGNORE, 4]])
    pairs = [(b, t) for b in range(2) for t in range(3) if targets[b, t] != IGNORE]
    expected = sum(reference.divergence(*(x[b, t].tolist() for x in logits)) for b, t in pairs) / len(pairs)
    assert compute_prediction_divergence(*logits, targets).item() == pytest.approx(expected, rel=1e-5)
    module = make(Elastic(distillation=1.0))
    alone = gradients(module, NextToken()(module(BATCH), BATCH)["loss"])
    full = module(BATCH, width=1.0).logits.detach()
    for width in WIDTHS[1:]:
        part = compute_prediction_divergence(full, module(BATCH, width=width).logits, BATCH["targets"])
        alone = [a + b for a, b in zip(alone, gradients(module, part), strict=True)]
    found = gradients(module, module.training_step(BATCH, 0)["loss"])
    assert all(torch.allclose(a, b, atol=1e-6, rtol=1e-4) for a, b in zip(alone, found, strict=True))


def test_a_teacher_that_the_step_does_not_train_is_run_without_gradients():
    module = make(Elastic(distillation=0.5, strategy=SampleWidth(probabilities=(0, 1, 0, 0))))
    trainer(max_steps=1).fit(module, Rows(batch=2), FewRows())
    cost = {width: estimate_cost(module.net, 16, width) for width in WIDTHS}
    assert module.estimate_training_flops(16) == cost[0.5].training + cost[1.0].forward
    assert dict(module.step_state.parts).keys() == {"loss@0.5"}
    assert make().estimate_training_flops(16) == sum(price.training for price in cost.values())


def test_validation_measures_every_width():
    module, run = make(), trainer(max_steps=1, val_check_interval=1)
    run.validate(module, FewRows(), verbose=False)
    found = {name: value.item() for name, value in run.callback_metrics.items() if name.startswith("val/loss")}
    assert list(found) == ["val/loss", "val/loss@0.5", "val/loss@0.25", "val/loss@0.125"]
    with torch.no_grad():
        for width, value in zip(WIDTHS, found.values(), strict=True):
            losses = [NextToken()(module(row, width=width), row)["loss"].item() for row in FewRows()]
            assert value == pytest.approx(sum(losses) / len(losses), rel=1e-5)
    assert {"val/ppl@0.5", "val/bpb@0.125"} <= run.callback_metrics.keys()


def test_training_makes_every_width_better_than_it_was():
    module, run, row = make(), trainer(max_steps=30, val_check_interval=1000), Rows().row(0)
    before = [NextToken()(module(row, width=width), row)["loss"].item() for width in WIDTHS]
    run.fit(module, Given([row] * 30))
    after = [NextToken()(module(row, width=width), row)["loss"].item() for width in WIDTHS]
    assert all(b < a - 0.4 for a, b in zip(before, after, strict=True))


def test_every_weight_has_a_gradient_at_every_width_so_that_ranks_wait_for_none():
    net = make().net
    for width in (0.125, 0.5, 1.0, 0.125):
        net.zero_grad()
        net(BATCH["tokens"], width=width).logits.square().mean().backward()
        assert all(weight.grad is not None for weight in net.parameters())


def test_a_network_of_one_width_is_refused_and_one_whose_slices_nobody_trains_is_told():
    with pytest.raises(ConfigError, match=r"^Elastic trains several widths.*and this network has one; choose ffn=mat"):
        LanguageTask(task().net, optim=AdamW(), schedule=Cosine(), objective=Elastic())
    told = make(NextToken()).list_warnings(16, lambda group, kind: group)
    assert told[-1] == "the widths 0.5, 0.25, 0.125 of nested layers are not trained; objective=elastic trains them"
    assert make().list_warnings(16, lambda group, kind: group) == told[:-1]


def test_probabilities_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match=r"^probabilities=\[0\.5, 0\.6\] sum to 1\.1; give shares in \[0, 1\] that"):
        SampleWidth(probabilities=(0.5, 0.6))
    with pytest.raises(ConfigError, match=r"^probabilities=\[0\.5, 0\.5\] has 2 numbers for the 4 widths 1, 0\.5, 0"):
        make(Elastic(strategy=SampleWidth(probabilities=(0.5, 0.5))))


@pytest.mark.parametrize("kind", [DarkExperience, LearningWithoutForgetting, ElasticWeights])
def test_a_loss_that_keeps_something_of_earlier_tasks_is_refused(kind):
    with pytest.raises(
        ConfigError, match=rf"^loss={kind.__name__} compares with what .*, and Elastic trains .*; use a"
    ):
        Elastic(loss=kind(base=CrossEntropy()))
    with pytest.raises(ConfigError, match=r"^loss=DyToxLoss compares with what the whole network kept"):
        Elastic(loss=DyToxLoss())


def test_a_loss_without_logits_cannot_be_distilled():
    class Hidden(NextToken):
        needs = "hidden"

    with pytest.raises(ConfigError, match=r"^distillation=0\.5 compares logits, and Hidden is computed without them"):
        Elastic(loss=Hidden(), distillation=0.5)
    assert Elastic(loss=Hidden()).needs == "hidden"
