"""The language task: its loss, its validation numbers, its optimizer."""

from __future__ import annotations

import math

import pytest
import torch
from tests.helpers import VOCAB, FewRows, Given, Rows, task, trainer

from aptlab.errors import ConfigError
from aptlab.objectives import compute_perplexity, compute_token_nll


def test_the_loss_is_the_mean_over_targets_that_count():
    logits = torch.randn(2, 3, 5, dtype=torch.float64)
    targets = torch.tensor([[1, -100, 4], [0, 2, -100]])
    total, count = 0.0, 0
    for b in range(2):
        for t in range(3):
            if targets[b, t] != -100:
                row = logits[b, t].tolist()
                total += math.log(sum(map(math.exp, row))) - row[targets[b, t]]
                count += 1
    assert compute_token_nll(logits, targets).item() == pytest.approx(total / count, abs=1e-6)
    assert compute_token_nll(logits, targets, reduction="sum").item() == pytest.approx(total, abs=1e-5)


def test_losses_by_row_are_sums_and_leave_loss_and_gradients_as_they_are():
    module, batch = task(), Rows().row(0)
    batch["targets"] = batch["targets"].clone()
    batch["targets"][1, 3:] = -100
    whole = module.training_step(batch, 0)
    assert module.step_state.rows is None
    whole["loss"].backward()
    gradients = [weight.grad.clone() for weight in module.parameters()]
    module.zero_grad()
    module.step_state.wants_rows = True
    out = module.training_step(batch, 0)
    out["loss"].backward()
    rows = module.step_state.rows
    assert out["loss"].item() == pytest.approx(whole["loss"].item(), rel=1e-6)
    assert all(torch.allclose(weight.grad, old, atol=1e-6) for weight, old in zip(module.parameters(), gradients))
    logits = module(batch).logits
    expected = [compute_token_nll(logits[i : i + 1], batch["targets"][i : i + 1], "sum").item() for i in range(4)]
    assert rows[0].tolist() == pytest.approx(expected, rel=1e-6)
    assert rows[1].tolist() == [16, 3, 16, 16]
    assert not rows.requires_grad


def test_validation_weighs_tokens_and_not_batches():
    module, run = task(), trainer(max_steps=1, val_check_interval=1)
    rows = FewRows(2)
    short = rows.row(10_001)
    short["targets"] = short["targets"].clone()
    short["targets"][:, 1:] = -100
    batches = [rows.row(10_000), short]
    module.bytes_per_token = 2.0
    run.validate(module, Given(batches), verbose=False)
    with torch.no_grad():
        sums = [compute_token_nll(module(b).logits, b["targets"], "sum").item() for b in batches]
    expected = sum(sums) / (4 * 16 + 4)
    assert run.callback_metrics["val/loss"].item() == pytest.approx(expected, rel=1e-6)
    assert run.callback_metrics["val/ppl"].item() == pytest.approx(math.exp(expected), rel=1e-5)
    assert run.callback_metrics["val/bpb"].item() == pytest.approx(expected / math.log(2) / 2, rel=1e-6)


class Sized(FewRows):
    """Data that know the bytes of each token."""

    token_bytes = torch.arange(VOCAB) % 4


def test_bits_per_byte_are_those_of_exactly_the_targets_that_were_scored():
    module, run = task(), trainer(max_steps=1, val_check_interval=1)
    batches = [FewRows(2).row(10_000), FewRows(2).row(10_001)]
    batches[1]["targets"] = batches[1]["targets"].clone()
    batches[1]["targets"][:, 3:] = -100
    module.bind_data(Sized(2))
    run.validate(module, Given(batches), verbose=False)
    with torch.no_grad():
        nats = sum(compute_token_nll(module(b).logits, b["targets"], "sum").item() for b in batches)
    size = sum(int(target) % 4 for b in batches for target in b["targets"].flatten() if target >= 0)
    assert run.callback_metrics["val/bpb"].item() == pytest.approx(nats / math.log(2) / size, rel=1e-6)


def test_an_untrained_model_is_about_as_good_as_guessing_and_training_improves_it():
    module, run = task(), trainer(max_steps=30, val_check_interval=1000)
    row = Rows().row(0)
    with torch.no_grad():
        before = compute_token_nll(module(row).logits, row["targets"]).item()
    run.fit(module, Given([row] * 30))
    with torch.no_grad():
        after = compute_token_nll(module(row).logits, row["targets"]).item()
    assert before == pytest.approx(math.log(VOCAB), abs=0.15)
    assert after < before - 0.5


def test_the_learning_rate_follows_the_schedule():
    module, run = task(), trainer(max_steps=6)
    run.fit(module, Rows(), FewRows())
    optimizer = run.optimizers[0]
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-2 * module.schedule.factor(6, 6))


def test_a_run_without_a_number_of_steps_is_refused():
    with pytest.raises(
        ConfigError, match=r"^the trainer has max_steps=-1, and a schedule needs their number; set trainer.max_steps=1"
    ):
        trainer(max_steps=-1, max_epochs=1).fit(task(), Given([Rows().row(0)]))


def test_perplexity_does_not_overflow():
    assert compute_perplexity(0.0) == 1.0
    assert compute_perplexity(1e6) == math.inf
