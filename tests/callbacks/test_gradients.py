"""What is done to gradients between the backward pass and the step: papers, laws, and the place in a run."""

from __future__ import annotations

import logging
from functools import partial

import pytest
import torch
from lightning.pytorch import Callback
from tests.helpers import Rows, assert_agree, task, trainer
from tests.reference import gradients as reference
from torch import nn

from aptlab.callbacks.gradients import AGC, AdaGC, LowRankGradients, ZClip
from aptlab.callbacks.gradients.low_rank import count_projection_flops, find_range
from aptlab.callbacks.gradients.zclip import GUARD
from aptlab.callbacks.guard import NonFiniteGuard
from aptlab.errors import ConfigError

EVERY = (AdaGC, ZClip, AGC, partial(LowRankGradients, rank=2))


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def give(**gradients: torch.Tensor) -> dict[str, nn.Parameter]:
    """Weights with these gradients; the weights themselves are fixed numbers."""
    weights = {name: nn.Parameter(draw(*g.shape, seed=9)) for name, g in gradients.items()}
    for name, g in gradients.items():
        weights[name].grad = g.clone()
    return weights


def change(rule, weights, finite: bool = True) -> dict[str, torch.Tensor]:
    """One step of a rule; the gradients that it leaves."""
    rule.steps += 1
    whole = torch.nn.utils.get_total_norm([weight.grad for weight in weights.values()])
    with torch.no_grad():
        rule.change(weights, torch.tensor(finite), whole)
    return {name: weight.grad for name, weight in weights.items()}


def test_adagc_is_the_published_one():
    steps = [[draw(3, 2, seed=n) * (50 if n == 7 else 1), draw(4, seed=100 + n)] for n in range(10)]
    expected = reference.adagc([[g.flatten().tolist() for g in pair] for pair in steps], 1.05, 0.9, 3, 1.0)
    rule = AdaGC(relative=1.05, beta=0.9, warmup=3, max_norm=1.0)
    for pair, wanted in zip(steps, expected, strict=True):
        got = change(rule, give(a=pair[0], b=pair[1]))
        assert_agree(got["a"].flatten().tolist(), wanted[0])
        assert_agree(got["b"].tolist(), wanted[1])


def test_adagc_does_not_hold_a_weight_whose_first_gradients_are_zero():
    rule = AdaGC(warmup=2)
    for scale in (0.0, 0.0, 0.0, 1.0):
        got = change(rule, give(a=scale * draw(3), b=draw(3)))
    assert torch.equal(got["a"], draw(3))


def test_zclip_is_the_published_one():
    sizes = [1.0, 1.2, 0.9, 1.1, 1.0, 9.0, 1.05, 1.3, 400.0, 1.0]
    direction = draw(5) / draw(5).norm()
    rule = ZClip(warmup=4)
    got = [change(rule, give(a=size * direction))["a"].norm().item() for size in sizes]
    assert_agree(got, reference.zclip(sizes, 2.5, 0.97, 4, GUARD), rel=1e-9)
    assert got[8] < 1.5


def test_agc_is_the_published_one_and_leaves_the_head():
    g = draw(4, 3) * torch.tensor([[1e-3], [1.0], [10.0], [0.1]], dtype=torch.float64)
    weights = give(a=g, **{"net.head.weight": g})
    expected = reference.agc(weights["a"].tolist(), g.tolist(), 0.01, 1e-3)
    got = change(AGC(), weights)
    assert_agree(got["a"].flatten().tolist(), [value for row in expected for value in row])
    assert torch.equal(got["net.head.weight"], g)


@pytest.mark.parametrize("balance", [False, True])
@pytest.mark.parametrize("power", [0, 2])
def test_low_rank_is_the_projection_of_the_range_finder(balance, power):
    g, omega = draw(7, 6), draw(6, 2, seed=5)
    basis = find_range(g, omega, power, balance=balance)
    expected = reference.low_rank(g.tolist(), omega.tolist(), power, balance)
    torch.testing.assert_close(basis @ (basis.mT @ g), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("balance", [False, True])
def test_low_rank_is_exact_on_a_gradient_of_that_rank(balance):
    g = draw(40, 3) @ draw(3, 30, seed=1)
    got = change(LowRankGradients(rank=3, balance=balance), give(a=g))["a"]
    torch.testing.assert_close(got, g)


@pytest.mark.parametrize(("decay", "share"), [(0.5, 0.98), (1.0, 0.98), (0.0, 0.93)])
def test_low_rank_points_where_the_truncated_decomposition_does(decay, share):
    """Within 2 % of its cosine with the gradient where singular values fall as a power; pure noise has no direction."""
    u, s, vt = torch.linalg.svd(draw(96, 64), full_matrices=False)
    if decay:
        s = torch.arange(1, 65, dtype=torch.float64) ** -decay
    g = u @ torch.diag(s) @ vt
    best = (s[:8].square().sum() / s.square().sum()).sqrt()  # cosine of the truncated one with G
    got = change(LowRankGradients(rank=8), give(a=g))["a"]
    cosine = (got * g).sum() / (got.norm() * g.norm())
    assert cosine > share * best


def test_what_low_rank_leaves_out_comes_later():
    rule = LowRankGradients(rank=2, every=3)
    steps = [draw(6, 5, seed=n) for n in range(7)]
    passed = sum(change(rule, give(a=g))["a"] for g in steps)
    torch.testing.assert_close(passed + rule.rests["a"], sum(steps))
    lossy = LowRankGradients(rank=2, error_feedback=False)
    change(lossy, give(a=steps[0]))
    assert lossy.rests == {}


def test_low_rank_leaves_vectors_small_matrices_embeddings_and_heads():
    given = {"a.bias": draw(9), "b": draw(9, 2), "net.embed.weight": draw(9, 9), "net.head.weight": draw(9, 9)}
    for name, got in change(LowRankGradients(rank=2), give(**given)).items():
        assert torch.equal(got, given[name])
    assert count_projection_flops(10, 20, 2, 1) == 2 * 10 * 20 * 2 * 5 + 2 * 4 * (20 + 20)


@pytest.mark.parametrize("make", EVERY)
@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_no_rule_makes_a_gradient_larger_or_turns_it_where_it_only_clips(make, scale):
    rule = make()
    for n in range(40):
        g = draw(5, 4, seed=n) * (scale if n % 9 == 8 else 1)
        got = change(rule, give(a=g))["a"]
        before = g if not isinstance(rule, LowRankGradients) else got + rule.rests["a"]
        assert got.norm() <= before.norm() * (1 + 1e-12)
        if isinstance(rule, AdaGC | ZClip):
            torch.testing.assert_close(got / got.norm(), g / g.norm())


@pytest.mark.parametrize("make", EVERY)
def test_a_step_that_is_skipped_teaches_nothing(make):
    """The verdict may still be on the device, so that the rule runs with a gradient of nan."""
    rule, alone = make(), make()
    for n in range(40):
        wanted = change(alone, give(a=draw(5, 4, seed=n)))["a"]
        assert torch.equal(change(rule, give(a=draw(5, 4, seed=n)))["a"], wanted)
        if n in (20, 35):
            change(rule, give(a=torch.full((5, 4), torch.nan, dtype=torch.float64)), finite=False)
            rule.steps -= 1


class Seen(Callback):
    """Norms that the optimizer steps with, and what is logged of them."""

    def __init__(self):
        self.norms, self.logged = [], []

    def on_before_zero_grad(self, trainer, pl_module, optimizer):
        found = [weight.grad for weight in pl_module.parameters() if weight.grad is not None]
        if found:
            self.norms.append(float(torch.nn.utils.get_total_norm(found)))

    def on_train_batch_end(self, trainer, pl_module, *rest):
        self.logged.append(pl_module.step_state.grad_norm)


def fit(*callbacks, **settings):
    seen = Seen()
    run = trainer(max_steps=4, limit_val_batches=0, callbacks=[NonFiniteGuard(), *callbacks, seen], **settings)
    run.fit(task(), Rows())
    return seen


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_run_steps_with_the_changed_gradient_and_logs_the_one_that_came(accumulate):
    free = fit(accumulate_grad_batches=accumulate)
    rule = AdaGC(warmup=99, max_norm=0.1)
    seen = fit(rule, accumulate_grad_batches=accumulate)
    assert rule.steps == 4
    assert float(seen.logged[accumulate - 1]) == float(free.logged[accumulate - 1]) > 0.2
    assert max(seen.norms) == pytest.approx(0.1, rel=1e-5)


def test_the_trainers_clipping_takes_the_norm_that_was_left(caplog):
    with caplog.at_level(logging.INFO, "aptlab"):
        seen = fit(AdaGC(warmup=99, max_norm=0.1), gradient_clip_val=0.5)
        both = fit(AdaGC(warmup=99, max_norm=0.1), gradient_clip_val=0.05)
    assert max(seen.norms) == pytest.approx(0.1, rel=1e-5)
    assert max(both.norms) == pytest.approx(0.05, rel=1e-4)
    assert "trainer.gradient_clip_val=0.5 clips the global norm after adagc; with null it clips alone" in caplog.text


def test_the_guard_comes_first():
    run = trainer(limit_val_batches=0, callbacks=[ZClip(), NonFiniteGuard()])
    with pytest.raises(ConfigError, match=r"zclip comes before guard.*callbacks=\[default,zclip\]"):
        run.fit(task(), Rows())


def test_low_rank_says_what_it_costs(caplog):
    with caplog.at_level(logging.INFO, "aptlab"):
        fit(LowRankGradients(rank=4))
    line = "low_rank: 8 gradients of 14 become rank 4: 0.00"
    assert [record.getMessage() for record in caplog.records if record.getMessage().startswith(line)]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (partial(AdaGC, relative=0.9), r"^relative must be a finite number >= 1, got 0.9"),
        (partial(AdaGC, beta=1.0), r"^beta must be in \[0, 1\), got 1.0"),
        (partial(AdaGC, warmup=-1), r"^warmup must be"),
        (partial(AdaGC, max_norm=0.0), r"^max_norm must be"),
        (partial(ZClip, threshold=0.0), r"^threshold must be"),
        (partial(ZClip, every=0), r"^every must be"),
        (partial(AGC, ratio=-1.0), r"^ratio must be"),
        (partial(AGC, eps=0.0), r"^eps must be"),
        (partial(LowRankGradients, rank=0), r"^rank must be"),
        (partial(LowRankGradients, power=-1), r"^power must be"),
        (partial(LowRankGradients, log_every=0), r"^every must be"),
    ],
)
def test_numbers_outside_of_their_limits_are_named(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
