"""The token loss, perplexity, and the weights of auxiliary losses."""

from __future__ import annotations

import logging
import math
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.helpers import task

from aptlab.errors import ConfigError
from aptlab.objectives import IGNORE, NextToken, Objective, compute_perplexity, compute_token_nll, get_step_state


def nll(row: list[float], target: int) -> float:
    return math.log(sum(map(math.exp, row))) - row[target]


def test_the_token_loss_of_each_token_in_nats():
    logits, targets = torch.randn(2, 3, 5), torch.tensor([[1, IGNORE, 4], [0, 2, IGNORE]])
    found = compute_token_nll(logits, targets, "none")
    assert found.shape == (2, 3)
    for b in range(2):
        for t in range(3):
            target = int(targets[b, t])
            expected = 0.0 if target == IGNORE else nll(logits[b, t].tolist(), target)
            assert found[b, t].item() == pytest.approx(expected, abs=1e-5)
    assert compute_token_nll(logits, targets, "sum").item() == pytest.approx(found.sum().item(), rel=1e-6)
    assert compute_token_nll(logits, targets).item() == pytest.approx(found.sum().item() / 4, rel=1e-6)


def test_bfloat16_logits_are_computed_in_float32():
    logits, targets = torch.randn(1, 4, 9).bfloat16(), torch.arange(4).unsqueeze(0)
    assert compute_token_nll(logits, targets).dtype == torch.float32
    assert torch.equal(compute_token_nll(logits, targets), compute_token_nll(logits.float(), targets))


@pytest.mark.parametrize(("nats", "ppl"), [(0.0, 1.0), (1.5, math.exp(1.5)), (700.0, math.inf), (math.inf, math.inf)])
def test_perplexity(nats, ppl):
    assert compute_perplexity(nats) == ppl


def test_perplexity_of_nan_is_nan():
    assert math.isnan(compute_perplexity(math.nan))


def output(**aux: float) -> Any:
    """Logits of one row of three tokens, with auxiliary losses such as l0_balance -> 0/ffn/balance."""
    names = {f"{name[1]}/ffn/{name[3:]}": torch.tensor(value, requires_grad=True) for name, value in aux.items()}
    return SimpleNamespace(logits=torch.zeros(1, 3, 4), aux=names)


BATCH = {"targets": torch.tensor([[1, 2, IGNORE]])}


def test_auxiliary_losses_are_means_over_layers_times_their_weight():
    parts = NextToken(aux={"balance": 0.01, "z": 2.0})(output(l0_balance=1.0, l1_balance=3.0, l0_z=0.5), BATCH)
    assert parts["aux/balance"].item() == 2.0
    assert parts["aux/z"].item() == 0.5
    assert parts["loss"].item() == pytest.approx(math.log(4) + 0.01 * 2.0 + 2.0 * 0.5)
    assert parts["loss"].requires_grad


def test_an_auxiliary_loss_without_a_weight_is_reported_once_and_not_minimised(caplog):
    objective = NextToken()
    with caplog.at_level(logging.WARNING, "aptlab"):
        parts = [objective(output(l0_balance=1.0), BATCH) for _ in range(3)][-1]
    assert parts["loss"].item() == pytest.approx(math.log(4))
    assert parts["aux/balance"].item() == 1.0
    (line,) = [record.getMessage() for record in caplog.records]
    assert "the layers' loss balance has no weight and is not minimised" in line
    assert "objective.aux={balance: 0.01}, or 0 to leave it so" in line


def test_a_weight_that_no_layer_serves_is_reported_once(caplog):
    objective = NextToken(aux={"balanc": 0.1, "balance": 0.0})
    with caplog.at_level(logging.WARNING, "aptlab"):
        for _ in range(3):
            objective(output(l0_balance=1.0), BATCH)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.endswith("aux.balanc=0.1 weighs nothing: no layer of this model has such a loss; there are: balance")


def test_a_weight_that_is_no_number_is_refused():
    with pytest.raises(ConfigError, match=r"aux\.balance=nan is no finite number; give a weight such as 0\.01"):
        NextToken(aux={"balance": math.nan})


def test_sums_of_a_batch_count_targets():
    nats, count = NextToken().sum_losses(output(), BATCH).tolist()
    assert (nats, count) == (pytest.approx(2 * math.log(4)), 2)


def test_an_objective_is_abstract():
    with pytest.raises(TypeError, match="abstract"):
        Objective()  # type: ignore[abstract]


def test_a_step_state_holds_the_last_batch_and_wishes_hold_for_one():
    module = task()
    state = get_step_state(module)
    state.wants_traces = state.wants_rows = True
    state.skipped = True
    assert state.begin_batch() == (True, True)
    assert state.begin_batch() == (False, False)
    assert state.skipped is True
    assert state.unit == "tokens"


def test_a_module_without_a_step_state_is_told_what_to_do():
    with pytest.raises(ConfigError, match=r"task: Linear has no step_state.*derive it from aptlab\.tasks\.Task"):
        get_step_state(torch.nn.Linear(1, 1))


def test_perplexity_imports_no_torch():
    code = (
        "import sys; from aptlab.objectives import IGNORE, StepState, compute_perplexity; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_z_loss_is_the_mean_squared_log_of_the_softmaxs_sum():
    """Over the same tokens as the loss; it moves all logits of a token together, which the loss does not see."""
    logits = torch.randn(1, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    batch = {"targets": torch.tensor([[1, IGNORE, 4]])}
    given = SimpleNamespace(logits=logits, aux={})
    logs = [math.log(sum(math.exp(value) for value in logits[0, t].tolist())) for t in (0, 2)]
    expected = sum(value**2 for value in logs) / 2
    parts, plain = NextToken(z_loss=0.1)(given, batch, rows=True), NextToken()(given, batch)
    assert parts["z_loss"].item() == pytest.approx(expected, rel=1e-6)
    assert parts["loss"].item() == pytest.approx(plain["loss"].item() + 0.1 * expected, rel=1e-6)
    assert "z_loss" not in plain
    parts["loss"].backward()
    assert logits.grad[0, 1].eq(0).all()
    shared = logits.grad.sum(-1)[0, [0, 2]].tolist()  # of the loss alone it is 0
    assert shared == pytest.approx([0.1 * 2 * value / 2 for value in logs], rel=1e-5)


def test_a_weight_of_the_z_loss_below_zero_is_named():
    with pytest.raises(ConfigError, match=r"^z_loss must be a finite number >= 0, got -1"):
        NextToken(z_loss=-1)
