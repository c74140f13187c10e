from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from aptlab.errors import ConfigError
from aptlab.nn.positions.rope import NTK, Linear, Standard
from aptlab.search import meter as module
from aptlab.search.evaluation_cache import SearchJob
from aptlab.search.meter import CandidateScorer, compute_token_nats
from aptlab.search.needles import SearchSample
from aptlab.search.objectives import MixedObjective, NeedleObjective, PerplexityObjective, get_objective
from aptlab.testing import make_random_tokens, make_tiny_decoder


def linear(factors):
    """Stands for a rule with factors: the first one for all pairs."""
    return Linear(factor=factors[0])


def sample(length: int, seed: int, *, positions: np.ndarray | None = None) -> SearchSample:
    tokens = make_random_tokens(1, length, seed=seed)[0].numpy()
    text = np.zeros(length, dtype=bool)
    text[length // 2 : length - 4] = True
    where = np.arange(length) if positions is None else positions
    return SearchSample(tokens, where, slice(length - 4, length), text)


def meter(*samples: SearchSample, objective=None, net=None) -> CandidateScorer:
    sets = {len(samples[0].tokens): list(samples)}
    return CandidateScorer(net or make_tiny_decoder(), sets, objective=objective or NeedleObjective(), rule_of=linear)


def reference(rule, one: SearchSample) -> torch.Tensor:
    net = make_tiny_decoder(rope=rule)
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
    first = measure(SearchJob((2.0,), 24, (0, 1, 2, 3)))
    measure(SearchJob((7.0,), 24, (0, 1)))
    assert measure(SearchJob((2.0,), 24, (0, 1, 2, 3))) == first
    assert measure(SearchJob((2.0,), 24, (2,)))[0] == pytest.approx(first[2], rel=1e-6)


def test_weights_stay_as_they_are():
    net = make_tiny_decoder()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    meter(sample(24, 0), net=net).losses(NTK(factor=4.0), 24, [0])
    assert all(value.equal(before[name]) for name, value in net.state_dict().items())


def test_logits_that_do_not_fit_in_memory_are_read_in_pieces(monkeypatch):
    net, tokens = make_tiny_decoder(), make_random_tokens(2, 40)
    positions = torch.cat([torch.arange(20), torch.arange(100, 120)]).expand(2, -1)
    with torch.no_grad():
        whole = compute_token_nats(net, tokens, positions)
        monkeypatch.setattr(module, "LOGITS", 61 * 2 * 7)
        pieces = compute_token_nats(net, tokens, positions)
    assert whole.shape == (2, 40)
    assert pieces.numpy() == pytest.approx(whole.numpy(), abs=1e-4)


def test_objectives_are_loss_of_text_of_answer_and_of_both():
    assert PerplexityObjective().value(1.0, 2.0) == 2.0
    assert NeedleObjective().value(1.0, 2.0) == 1.0
    assert MixedObjective(answer=2.0, text=4.0).value(1.0, 2.0) == 0.5
    assert [get_objective(name).needles for name in ("ppl", "needle_ppl", "mixed")] == [False, True, True]


def test_ppl_of_samples_without_a_number():
    one = sample(24, 0)
    one = SearchSample(one.tokens, one.positions, None, one.text)
    (value,) = meter(one, objective=PerplexityObjective())(SearchJob((1.0,), 24, (0,)))
    assert value == pytest.approx(float(reference(Linear(factor=1.0), one)[11:19].mean()), rel=1e-5)
    assert math.isfinite(value)


def test_a_sample_without_plain_text_has_no_loss_of_text():
    one = sample(24, 0)
    bare = SearchSample(one.tokens, one.positions, one.answer, np.zeros(24, dtype=bool))
    ((answer, text),) = meter(bare).losses(Standard(), 24, [0])
    assert text == 0.0
    assert answer > 0


def test_an_unknown_objective_is_named():
    with pytest.raises(ConfigError, match=r"^objective=needle: no such objective; did you mean needle_ppl"):
        get_objective("needle")


def test_the_meter_is_sent_nothing_but_factors():
    """`rule_of` travels to other processes: partial functions of the module do."""
    import pickle

    assert pickle.loads(pickle.dumps(partial(linear, [2.0])))() == Linear(factor=2.0)
