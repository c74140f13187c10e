from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from aptlab.errors import ConfigError
from aptlab.nn.rope import NTK, Linear, Standard
from aptlab.search import meter as module
from aptlab.search.book import Job
from aptlab.search.meter import Meter, token_losses
from aptlab.search.needles import Sample
from aptlab.search.objectives import Mixed, NeedlePpl, Ppl, objective_of
from aptlab.testing import random_tokens, tiny_decoder


def linear(factors):
    """Stands for a rule with factors: the first one for all pairs."""
    return Linear(factor=factors[0])


def sample(length: int, seed: int, *, positions: np.ndarray | None = None) -> Sample:
    tokens = random_tokens(1, length, seed=seed)[0].numpy()
    text = np.zeros(length, dtype=bool)
    text[length // 2 : length - 4] = True
    where = np.arange(length) if positions is None else positions
    return Sample(tokens, where, slice(length - 4, length), text)


def meter(*samples: Sample, objective=None, net=None) -> Meter:
    sets = {len(samples[0].tokens): list(samples)}
    return Meter(net or tiny_decoder(), sets, objective=objective or NeedlePpl(), rule_of=linear)


def reference(rule, one: Sample) -> torch.Tensor:
    net = tiny_decoder(rope=rule)
    tokens = torch.from_numpy(one.tokens)[None]
    with torch.no_grad():
        logits = net(tokens, positions=torch.from_numpy(one.positions)[None]).logits[0, :-1]
    return F.cross_entropy(logits, tokens[0, 1:], reduction="none")


def test_losses_are_those_of_a_network_built_with_the_rule():
    samples = [sample(24, seed) for seed in range(3)]
    found = meter(*samples).losses(Linear(factor=3.0), 24, range(3))
    for one, (answer, text) in zip(samples, found, strict=True):
        nats = reference(Linear(factor=3.0), one)
        assert answer == pytest.approx(float(nats[-4:].mean()), rel=1e-5)
        assert text == pytest.approx(float(nats[11:19].mean()), rel=1e-5)


def test_positions_that_jump_reach_the_network():
    jumped = np.concatenate([np.arange(12), np.arange(500, 512)])
    one = sample(24, 0, positions=jumped)
    ((answer, _),) = meter(one).losses(Standard(), 24, [0])
    assert answer == pytest.approx(float(reference(Standard(), one)[-4:].mean()), rel=1e-5)
    ((plain, _),) = meter(sample(24, 0)).losses(Standard(), 24, [0])
    assert answer != pytest.approx(plain, rel=1e-3)


def test_a_candidate_is_measured_alike_after_others_and_beside_others():
    measure = meter(*[sample(24, seed) for seed in range(4)])
    first = measure(Job((2.0,), 24, (0, 1, 2, 3)))
    measure(Job((7.0,), 24, (0, 1)))
    assert measure(Job((2.0,), 24, (0, 1, 2, 3))) == first
    assert measure(Job((2.0,), 24, (2,)))[0] == pytest.approx(first[2], rel=1e-6)


def test_weights_stay_as_they_are():
    net = tiny_decoder()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    meter(sample(24, 0), net=net).losses(NTK(factor=4.0), 24, [0])
    assert all(value.equal(before[name]) for name, value in net.state_dict().items())


def test_logits_that_do_not_fit_in_memory_are_read_in_pieces(monkeypatch):
    net, tokens = tiny_decoder(), random_tokens(2, 40)
    positions = torch.cat([torch.arange(20), torch.arange(100, 120)]).expand(2, -1)
    with torch.no_grad():
        whole = token_losses(net, tokens, positions)
        monkeypatch.setattr(module, "LOGITS", 61 * 2 * 7)
        pieces = token_losses(net, tokens, positions)
    assert whole.shape == (2, 40)
    assert pieces.numpy() == pytest.approx(whole.numpy(), abs=1e-4)


def test_objectives_are_loss_of_text_of_answer_and_of_both():
    assert Ppl().value(1.0, 2.0) == 2.0
    assert NeedlePpl().value(1.0, 2.0) == 1.0
    assert Mixed(answer=2.0, text=4.0).value(1.0, 2.0) == 0.5
    assert [objective_of(name).needles for name in ("ppl", "needle_ppl", "mixed")] == [False, True, True]


def test_ppl_of_samples_without_a_number():
    one = sample(24, 0)
    one = Sample(one.tokens, one.positions, None, one.text)
    (value,) = meter(one, objective=Ppl())(Job((1.0,), 24, (0,)))
    assert value == pytest.approx(float(reference(Linear(factor=1.0), one)[11:19].mean()), rel=1e-5)
    assert math.isfinite(value)


def test_a_sample_without_plain_text_has_no_loss_of_text():
    one = sample(24, 0)
    bare = Sample(one.tokens, one.positions, one.answer, np.zeros(24, dtype=bool))
    ((answer, text),) = meter(bare).losses(Standard(), 24, [0])
    assert text == 0.0
    assert answer > 0


def test_an_unknown_objective_is_named():
    with pytest.raises(ConfigError, match=r"search\.objective=needle: no such objective; did you mean needle_ppl"):
        objective_of("needle")


def test_the_meter_is_sent_nothing_but_factors():
    """`rule_of` travels to other processes: partial functions of the module do."""
    import pickle

    assert pickle.loads(pickle.dumps(partial(linear, [2.0])))() == Linear(factor=2.0)
