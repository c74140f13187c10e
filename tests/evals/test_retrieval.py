"""Answers of a network to samples: against plain forward passes, and of networks that know or do not know."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from aptlab.data.tokenizers import ByteTokenizer
from aptlab.errors import AptlabError
from aptlab.evals.scoring import retrieval
from aptlab.evals.scoring.retrieval import answer_samples, compute_wilson_interval, score_text, summarize_grid
from aptlab.evals.tasks import PasskeyTask, TaskSampler, VariableTracking, build_ruler_tasks
from aptlab.models.decoder import Output
from aptlab.sample import SamplingRules, generate_tokens
from aptlab.testing.tiny import make_tiny_decoder
from tests.evals.making import documents, tokenizer

VOCAB = ByteTokenizer().vocab_size


def made(task=None, *, kind: str = "bytes", length: int = 300, count: int = 3):
    one = TaskSampler(task or PasskeyTask(), tokenizer=tokenizer(kind), length=length, texts=documents())
    return [one.make(index) for index in range(count)]


class Oracle(nn.Module):
    """Writes the rest of the text it knows after any beginning of it; `wrong` tokens of it are others."""

    def __init__(self, samples, eos: int, wrong: int = 0) -> None:
        super().__init__()
        self.vocab = VOCAB
        self.known = [[*sample.tokens, *sample.answer, *[eos] * sample.budget] for sample in samples]
        self.wrong = range(len(samples[0].tokens), len(samples[0].tokens) + wrong)
        self.row = 0

    def new_cache(self, batch, length):
        del length
        return [list(known) for known in self.known[self.row : self.row + batch]], [0]

    def forward(self, tokens, *, cache):
        rows, seen = cache
        logits = torch.full((*tokens.shape, VOCAB), -10.0)
        for row, known in enumerate(rows):
            for t in range(tokens.shape[1]):
                at = seen[0] + t + 1
                follows = known[at] if at < len(known) else 0
                logits[row, t, (follows + 1) % 256 if at in self.wrong else follows] = 10.0
        seen[0] += tokens.shape[1]
        return Output(logits, logits, {}, {})


@pytest.mark.parametrize("name", ["niah_multivalue", "vt", "cwe", "qa_2"])
def test_a_network_that_knows_scores_one_and_loses_nothing(name):
    samples = made(build_ruler_tasks()[name], length=640)
    outcomes = list(answer_samples(Oracle(samples, ByteTokenizer().eos), samples, tokenizer=ByteTokenizer()))
    for sample, outcome in zip(samples, outcomes, strict=True):
        assert (outcome.score, outcome.token_accuracy) == (1.0, 1.0)
        assert outcome.loss < 1e-4
        assert outcome.generated == sample.meta["answer"]
        assert outcome.tokens == len(sample.answer)


def test_one_wrong_token_costs_its_share_and_its_nats():
    samples = made(VariableTracking(hops=1), length=400)
    outcomes = list(answer_samples(Oracle(samples, ByteTokenizer().eos, wrong=1), samples, tokenizer=ByteTokenizer()))
    for sample, outcome in zip(samples, outcomes, strict=True):
        assert outcome.token_accuracy == pytest.approx(1 - 1 / len(sample.answer))
        assert outcome.nats == pytest.approx(20.0, abs=0.01)
        assert outcome.score == 1.0  # the first token is only the space before the answer


@pytest.mark.parametrize("kind", ["bytes", "bpe"])
def test_loss_and_accuracy_are_those_of_one_forward_pass_over_prompt_and_answer(kind):
    samples = made(build_ruler_tasks()["niah_single_3"], kind=kind, length=400)
    net = make_tiny_decoder(vocab=tokenizer(kind).vocab_size)
    for sample, outcome in zip(samples, answer_samples(net, samples, tokenizer=tokenizer(kind)), strict=True):
        whole = torch.tensor([[*sample.tokens, *sample.answer]])
        with torch.no_grad():
            chances = net(whole).logits[0, len(sample.tokens) - 1 : -1].double().log_softmax(-1)
        target = torch.tensor(sample.answer)
        assert outcome.nats == pytest.approx(-chances.gather(1, target[:, None]).sum().item(), rel=1e-4)
        assert outcome.token_accuracy == pytest.approx((chances.argmax(-1) == target).double().mean().item())
        assert outcome.loss == pytest.approx(outcome.nats / outcome.tokens)


def test_the_text_is_the_one_that_generate_writes():
    samples = made()
    net = make_tiny_decoder(vocab=VOCAB)
    texts = generate_tokens(
        net,
        [sample.tokens for sample in samples],
        rules=SamplingRules(temperature=0),
        max_new_tokens=samples[0].budget,
        eos=ByteTokenizer().eos,
        vocab=VOCAB,
    )
    found = [outcome.generated for outcome in answer_samples(net, samples, tokenizer=ByteTokenizer())]
    assert found == [ByteTokenizer().decode(tokens) for tokens in texts]


@pytest.mark.parametrize("kind", ["bytes", "bpe"])
def test_pieces_and_batches_change_no_outcome(monkeypatch, kind):
    samples = made(build_ruler_tasks()["niah_single_1"], kind=kind, length=420, count=4)
    net = make_tiny_decoder(vocab=tokenizer(kind).vocab_size)
    together = list(answer_samples(net, samples, tokenizer=tokenizer(kind)))
    monkeypatch.setattr(retrieval, "TOKENS", {"cpu": 420})
    monkeypatch.setattr(retrieval, "MASK", 7 * 420)
    alone = list(answer_samples(net, samples, tokenizer=tokenizer(kind)))
    for a, b in zip(together, alone, strict=True):
        assert a.nats == pytest.approx(b.nats, rel=1e-4)
        assert (a.generated, a.token_accuracy, a.index) == (b.generated, b.token_accuracy, b.index)


def test_no_more_logits_are_held_than_allowed(monkeypatch):
    samples = made(count=2)
    net, largest = make_tiny_decoder(vocab=VOCAB), 0

    def watch(_, __, output):
        nonlocal largest
        largest = max(largest, output.numel())

    net.head.register_forward_hook(watch)
    monkeypatch.setattr(retrieval, "LOGITS", 40 * VOCAB)
    list(answer_samples(net, samples, tokenizer=ByteTokenizer()))
    assert 0 < largest <= 40 * VOCAB


def test_the_network_keeps_its_mode():
    net = make_tiny_decoder(vocab=VOCAB).train()
    list(answer_samples(net, made(count=1), tokenizer=ByteTokenizer()))
    assert net.training


def test_logits_that_are_no_numbers_are_an_error():
    net = make_tiny_decoder(vocab=VOCAB)
    with torch.no_grad():
        net.embed.weight.fill_(math.nan)
    with pytest.raises(AptlabError, match=r"logits are not finite 0 tokens after a prompt; a rope= in place of"):
        list(answer_samples(net, made(count=1), tokenizer=ByteTokenizer()))


@pytest.mark.parametrize(
    ("text", "answers", "match", "expected"),
    [
        ("1, 2 and 3", ("1", "2", "4"), "all", 2 / 3),
        ("KASODU!", ("kasodu",), "all", 1.0),
        ("it is b", ("a", "b"), "part", 1.0),
        ("nothing", ("a", "b"), "part", 0.0),
        ("", ("x",), "all", 0.0),
    ],
)
def test_scores_are_those_of_ruler(text, answers, match, expected):
    assert score_text(text, answers, match) == pytest.approx(expected)


@pytest.mark.parametrize("count", [0, 1, 5, 19, 20])
def test_wilsons_interval_has_the_two_shares_that_the_normal_test_just_allows(count):
    n, z = 20, 1.959963984540054
    low, high = compute_wilson_interval(count / n, n)
    assert 0 <= low <= count / n <= high <= 1
    for end in (low, high):
        if 0 < end < 1:  # (p̂ - p)² = z² p (1 - p) / n
            assert (count / n - end) ** 2 == pytest.approx(z * z * end * (1 - end) / n, rel=1e-9)


def test_the_grid_averages_scores_and_weighs_answer_tokens():
    base = {"task": "t", "length": 8, "asked_depth": 0.5, "token_accuracy": 0.5}
    rows = [{**base, "score": 1.0, "nats": 2.0, "tokens": 1}, {**base, "score": 0.5, "nats": 1.0, "tokens": 5}]
    (cell,) = summarize_grid(rows)
    assert (cell["task"], cell["length"], cell["depth"], cell["samples"]) == ("t", 8, 0.5, 2)
    assert cell["score"] == 0.75
    assert cell["loss"] == 0.5
    assert (cell["low"], cell["high"]) == compute_wilson_interval(0.75, 2)
