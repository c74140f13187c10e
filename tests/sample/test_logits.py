"""The rules on logits: float64 references in plain Python, laws, and transformers as an oracle."""

from __future__ import annotations

import math

import pytest
import torch

from aptlab.errors import ConfigError
from aptlab.sample import SamplingRules
from aptlab.sample.logits import (
    BAD,
    apply_rules,
    apply_temperature,
    draw_tokens,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    penalise_seen_tokens,
)

ROWS, VOCAB = 5, 37


def logits(seed: int = 0, rows: int = ROWS, vocab: int = VOCAB) -> torch.Tensor:
    return 3 * torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed))


def seen(seed: int = 1) -> torch.Tensor:
    return torch.rand(ROWS, VOCAB, generator=torch.Generator().manual_seed(seed)) < 0.3


def probabilities(row: list[float]) -> list[float]:
    top = max(row)
    weights = [math.exp(x - top) for x in row]
    return [w / math.fsum(weights) for w in weights]


def kept(tensor: torch.Tensor) -> list[set[int]]:
    return [{i for i, x in enumerate(row) if x > -math.inf} for row in tensor.tolist()]


def nucleus(row: list[float], p: float) -> set[int]:
    chosen: set[int] = set()
    total = 0.0
    for i, q in sorted(enumerate(probabilities(row)), key=lambda item: -item[1]):
        chosen.add(i)
        total += q
        if total >= p:
            break
    return chosen


def test_top_k_keeps_the_k_largest():
    x = logits()
    expected = [set(sorted(range(VOCAB), key=lambda i, row=row: -row[i])[:7]) for row in x.tolist()]
    assert kept(keep_top_k(x, 7)) == expected


@pytest.mark.parametrize("p", [0.05, 0.5, 0.9, 0.999])
def test_top_p_keeps_the_smallest_set_with_that_probability(p):
    x = logits()
    assert kept(keep_top_p(x, p)) == [nucleus(row, p) for row in x.double().tolist()]


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 1.0])
def test_min_p_keeps_tokens_with_that_share_of_the_largest_probability(share):
    x = logits()
    expected = []
    for row in x.double().tolist():
        q = probabilities(row)
        expected.append({i for i in range(VOCAB) if q[i] >= share * max(q) * (1 - 1e-9)})
    assert kept(keep_min_p(x, share)) == expected


def test_repetition_penalty_divides_positive_and_multiplies_negative_logits_of_seen_tokens():
    x, mask = logits(), seen()
    for row, marks, got in zip(x.tolist(), mask.tolist(), penalise_seen_tokens(x, mask, 1.7).tolist(), strict=True):
        want = [(v / 1.7 if v > 0 else v * 1.7) if mark else v for v, mark in zip(row, marks, strict=True)]
        assert got == pytest.approx(want, rel=1e-6)


def test_repetition_penalty_never_raises_a_logit():
    x, mask = logits(), seen()
    assert (penalise_seen_tokens(x, mask, 1.3) <= x).all()


@pytest.mark.parametrize("t", [0.1, 0.7, 2.0])
def test_temperature_gives_probabilities_to_the_power_of_its_inverse(t):
    x = logits().double()
    power = x.softmax(-1) ** (1 / t)
    torch.testing.assert_close(apply_temperature(x, t).softmax(-1), power / power.sum(-1, keepdim=True))


def test_a_tiny_temperature_does_not_overflow():
    chances = apply_temperature(logits() * 100, 1e-35).softmax(-1)
    assert chances.isfinite().all()
    assert torch.equal(chances.argmax(-1), logits().argmax(-1))


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_the_likeliest_token_survives_every_cut(p):
    x = logits()
    out = apply_rules(SamplingRules(temperature=0.5, top_k=1, top_p=p, min_p=1.0), x)
    assert kept(out) == [{i} for i in x.argmax(-1).tolist()]


def test_rules_that_are_off_change_nothing():
    x = logits()
    assert torch.equal(apply_rules(SamplingRules(), x, seen()), x)


def test_bfloat16_logits_become_float32():
    assert apply_rules(SamplingRules(temperature=0.5), logits().bfloat16()).dtype == torch.float32


def test_a_row_of_a_batch_equals_the_row_alone():
    rules = SamplingRules(temperature=0.7, top_k=20, top_p=0.8, min_p=0.02, repetition_penalty=1.2)
    x, mask = logits(), seen()
    together = apply_rules(rules, x, mask)
    for i in range(ROWS):
        assert torch.equal(together[i : i + 1], apply_rules(rules, x[i : i + 1], mask[i : i + 1]))


@pytest.mark.parametrize(
    "rules",
    [
        SamplingRules(temperature=0.7),
        SamplingRules(top_k=5),
        SamplingRules(top_p=0.8),
        SamplingRules(min_p=0.05),
        SamplingRules(repetition_penalty=1.3),
        SamplingRules(temperature=0.6, top_k=25, top_p=0.85, min_p=0.03, repetition_penalty=1.4),
    ],
    ids=lambda rules: ",".join(f"{k}={v}" for k, v in vars(rules).items() if v != getattr(SamplingRules(), k)),
)
def test_rules_equal_the_processors_of_transformers(rules):
    hf = pytest.importorskip("transformers.generation.logits_process")
    tokens = torch.randint(VOCAB, (ROWS, 9), generator=torch.Generator().manual_seed(2))
    mask = torch.zeros(ROWS, VOCAB, dtype=torch.bool).scatter(1, tokens, True)
    chain = [hf.RepetitionPenaltyLogitsProcessor(penalty=rules.repetition_penalty)]
    chain.append(hf.TemperatureLogitsWarper(rules.temperature))
    chain += [hf.TopKLogitsWarper(rules.top_k)] if rules.top_k else []
    chain += [hf.TopPLogitsWarper(rules.top_p)] if rules.top_p < 1 else []
    chain += [hf.MinPLogitsWarper(rules.min_p)] if rules.min_p else []
    want = logits()
    for process in chain:
        want = process(tokens, want)
    torch.testing.assert_close(apply_rules(rules, logits(), mask).softmax(-1), want.softmax(-1), rtol=1e-5, atol=1e-7)


def test_greedy_draws_the_largest_penalised_logit():
    rules = SamplingRules(temperature=0, repetition_penalty=100.0, top_k=3)
    x = torch.tensor([[1.0, 5.0, 3.0]])
    mask = torch.tensor([[False, True, False]])
    assert draw_tokens(rules, apply_rules(rules, x, mask), torch.tensor([0.99])).tolist() == [2]


def test_the_draw_follows_the_distribution():
    x = torch.tensor([[0.0, -math.inf, 1.0, -1.0, -math.inf]])
    n = 4000
    numbers = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    counts = draw_tokens(SamplingRules(), x.expand(n, -1), numbers).bincount(minlength=5)
    assert counts[[1, 4]].tolist() == [0, 0]
    torch.testing.assert_close(counts.double() / n, x[0].double().softmax(-1), rtol=0, atol=1 / n)


@pytest.mark.parametrize("u", [0.0, 1 - 2**-48])
def test_the_draw_never_takes_a_ruled_out_token_at_the_ends(u):
    x = keep_top_k(logits(vocab=1000), 3)
    chosen = draw_tokens(SamplingRules(), x, torch.full((ROWS,), u, dtype=torch.float64)).tolist()
    assert all(token in allowed for token, allowed in zip(chosen, kept(x), strict=True))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_that_are_no_numbers_are_told(temperature, value):
    x = logits()
    x[2, 3] = value
    chosen = draw_tokens(
        SamplingRules(temperature=temperature), x, torch.full((ROWS,), 0.5, dtype=torch.float64)
    ).tolist()
    assert [token == BAD for token in chosen] == [False, False, True, False, False]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"temperature": -0.1}, r"^temperature must be a finite number >= 0, got -0\.1"),
        ({"top_k": -1}, r"^top_k must be a finite number >= 0, got -1"),
        ({"top_p": 1.1}, r"^top_p must be in \[0, 1\], got 1\.1"),
        ({"min_p": -1}, r"^min_p must be in \[0, 1\], got -1"),
        ({"repetition_penalty": 0}, r"^repetition_penalty must be a finite number > 0, got 0"),
    ],
)
def test_rules_refuse_values_outside_their_limits(values, message):
    with pytest.raises(ConfigError, match=message):
        SamplingRules(**values)
