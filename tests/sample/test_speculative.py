"""A drafter changes how many passes a text takes, and nothing of the text's distribution."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

import pytest
import torch
from tests.reference import matformer as reference

from aptlab.errors import AptlabError
from aptlab.models.edit import extract_width
from aptlab.nn.attention import FullAttention, LinearAttention
from aptlab.nn.ffn import MatFormer, SwiGLU
from aptlab.nn.shape import Shape
from aptlab.nn.window import SlidingWindow
from aptlab.sample import SamplingRules, generate_rows, generate_tokens
from aptlab.sample.logits import apply_rules
from aptlab.sample.speculative import ACCEPT, CORRECT, Draft, verify_draft
from aptlab.testing.tiny import make_tiny_decoder

GREEDY = SamplingRules(temperature=0)
WARM = SamplingRules(temperature=0.9, top_k=30, top_p=0.95, min_p=0.01, repetition_penalty=1.1)
PROMPTS = [[5, 9, 2, 40, 7], [11], [3, 3, 8]]
NEW = 11


def make_pair(width: float = 0.25, tokens: int = 4, **parts: Any) -> tuple[Any, Draft]:
    net = make_tiny_decoder(ffn=partial(SwiGLU, nested=MatFormer()), **parts)
    return net, Draft(extract_width(net, width, share=True), tokens)


@pytest.mark.parametrize("tokens", [1, 2, 3, 7, 50])
@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_greedy_text_is_that_of_plain_decoding(tokens, penalty):
    net, draft = make_pair(tokens=tokens)
    rules = SamplingRules(temperature=0, repetition_penalty=penalty)
    plain = generate_tokens(net, PROMPTS, rules=rules, max_new_tokens=NEW, eos=None)
    assert generate_tokens(net, PROMPTS, rules=rules, max_new_tokens=NEW, eos=None, draft=draft) == plain
    assert draft.accepted <= draft.drafted
    assert draft.accepted + draft.passes == NEW * len(PROMPTS)


def test_windows_are_drafted_with_all_keys_kept():
    net, draft = make_pair(attention=partial(FullAttention, window=SlidingWindow(size=4)))
    plain = generate_tokens(net, PROMPTS, rules=GREEDY, max_new_tokens=20, eos=None)
    assert generate_tokens(net, PROMPTS, rules=GREEDY, max_new_tokens=20, eos=None, draft=draft) == plain


@pytest.mark.parametrize("rules", [GREEDY, WARM], ids=["greedy", "sampled"])
def test_a_drafter_that_is_the_network_is_always_believed(rules):
    net = make_tiny_decoder()
    draft = Draft(net, 3)
    generate_rows(net, PROMPTS, rules=rules, max_new_tokens=NEW, eos=None, draft=draft)
    assert draft.accepted == draft.drafted == len(PROMPTS) * 8
    assert draft.describe() == "100% of 24 drafted tokens accepted, 3.67 tokens a pass"
    assert Draft(net).describe() == "nothing drafted"


def test_a_text_depends_on_its_own_seed_alone():
    net, draft = make_pair()
    texts = generate_tokens(net, PROMPTS, rules=WARM, max_new_tokens=NEW, eos=None, seed=[1, 2, 3], draft=draft)
    alone = [
        generate_tokens(net, [prompt], rules=WARM, max_new_tokens=NEW, eos=None, seed=seed, draft=draft)[0]
        for prompt, seed in zip(PROMPTS, (1, 2, 3), strict=True)
    ]
    assert texts == alone
    assert texts != generate_tokens(net, PROMPTS, rules=WARM, max_new_tokens=NEW, eos=None, seed=9, draft=draft)


def test_a_row_ends_where_plain_decoding_ends_it():
    net, draft = make_pair()
    (plain,) = generate_tokens(net, PROMPTS[:1], rules=GREEDY, max_new_tokens=NEW, eos=None)
    rest = {"rules": GREEDY, "max_new_tokens": NEW, "draft": draft}
    (row,) = generate_rows(net, PROMPTS[:1], eos=plain[4], **rest)
    assert (row.tokens, row.reason) == (plain[: plain.index(plain[4])], "eos")
    told: list[tuple[int, int]] = []
    (row,) = generate_rows(
        net, PROMPTS[:1], eos=None, on_token=lambda *pair: told.append(pair) or len(told) == 3, **rest
    )
    assert (row.tokens, row.reason, told) == (plain[:3], "stop", [(0, token) for token in plain[:3]])


def give_numbers(accept: float, correct: float) -> Any:
    """The same two numbers for every token."""
    return lambda _, purpose: {ACCEPT: accept, CORRECT: correct}[purpose]


def distribution(p: list[float], q: list[float], token: int, steps: int = 2000) -> list[float]:
    """What a drafted token becomes, over a grid of both numbers."""
    logits = [torch.tensor([row], dtype=torch.float64).log() for row in (p, q)]
    sure = torch.zeros(1, len(p), dtype=torch.float64)
    target = torch.cat((logits[0], sure))

    def becomes(accept: float, correct: float) -> int:
        return verify_draft(SamplingRules(), [token], [logits[1]], target, give_numbers(accept, correct))[0]

    kept = sum(len_kept(becomes, (i + 0.5) / steps, token) for i in range(steps)) / steps
    drawn = Counter(becomes(1 - 1e-12, (i + 0.5) / steps) for i in range(steps))
    return [kept * (x == token) + (1 - kept) * drawn[x] / steps for x in range(len(p))]


def len_kept(becomes: Any, accept: float, token: int) -> int:
    """Whether the token stays at this number, told by a correction that is never the token itself."""
    return int(all(becomes(accept, correct) == token for correct in (0.0, 1 - 1e-9)))


def test_what_is_written_has_the_distribution_of_the_large_network():
    p, q = [0.5, 0.1, 0.25, 0.15, 0.0], [0.2, 0.4, 0.25, 0.05, 0.1]
    total = [0.0] * 5
    for token, share in enumerate(q):
        total = [a + share * b for a, b in zip(total, distribution(p, q, token, 400), strict=True)]
    assert total == pytest.approx(p, abs=0.005)


def test_each_decision_is_the_papers():
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        p, q = torch.rand(2, 6, generator=generator, dtype=torch.float64).softmax(-1)
        token, number, correct = int(torch.randint(6, (1,), generator=generator)), *torch.rand(2, generator=generator)
        stays, rest = reference.accept_draft(p.tolist(), q.tolist(), token, number.item())
        target, numbers = torch.stack((p.log(), p.log())), give_numbers(number.item(), correct.item())
        found = verify_draft(SamplingRules(), [token], [q.log().unsqueeze(0)], target, numbers)
        assert (len(found) == 2) == stays
        drawn = torch.tensor(p.tolist() if stays else rest, dtype=torch.float64).cumsum(0)
        assert found[-1] == int(torch.searchsorted(drawn, correct.double() * drawn[-1], right=True))


@pytest.mark.slow
@pytest.mark.parametrize("rules", [SamplingRules(), SamplingRules(temperature=0.7, top_k=4)], ids=["plain", "cut"])
def test_pairs_of_tokens_come_as_often_as_the_network_says(rules):
    shape, rows = Shape(dim=8, depth=1, heads=2, hidden=16), 3000
    net = make_tiny_decoder(shape=shape, vocab=6, ffn=partial(SwiGLU, nested=MatFormer()), gain=20.0)
    draft = Draft(extract_width(net, 0.125, share=True), 2)
    prompt = [1, 2, 3]

    def chances(tokens: list[int]) -> list[float]:
        with torch.no_grad():
            logits = net(torch.tensor([tokens])).logits[:, -1]
        return apply_rules(rules, logits).double().softmax(-1)[0].tolist()

    expected = {(a, b): pa * pb for a, pa in enumerate(chances(prompt)) for b, pb in enumerate(chances([*prompt, a]))}
    texts = generate_tokens(
        net, [prompt] * rows, rules=rules, max_new_tokens=3, eos=None, seed=list(range(rows)), draft=draft
    )
    counts = Counter((text[0], text[1]) for text in texts)
    assert all(expected[pair] > 0 for pair in counts)
    likely = [pair for pair, share in expected.items() if share * rows >= 5]
    chi = sum((counts[pair] - rows * expected[pair]) ** 2 / (rows * expected[pair]) for pair in likely)
    assert chi < len(likely) + 4 * (2 * len(likely)) ** 0.5
    assert 0.05 < draft.accepted / draft.drafted < 0.99


@pytest.mark.parametrize(
    ("parts", "rules", "tokens", "message"),
    [
        (
            {},
            SamplingRules(crossing="reprefill"),
            4,
            r"^crossing=reprefill reads a text again.*with draft use crossing=ad",
        ),
        ({}, GREEDY, 0, r"^draft_tokens=0 must be 1 or more"),
        (
            {"attention": LinearAttention},
            GREEDY,
            4,
            r"^tokens cannot be taken back from this cache: some of its layers",
        ),
    ],
)
def test_what_cannot_be_drafted_is_refused(parts, rules, tokens, message):
    net, draft = make_pair(tokens=tokens, **parts)
    with pytest.raises(AptlabError, match=message):
        generate_rows(net, PROMPTS[:1], rules=rules, max_new_tokens=NEW, eos=None, draft=draft)


def test_a_drafter_of_another_shape_is_refused():
    other = make_tiny_decoder(shape=Shape(dim=8, depth=1, heads=2, hidden=16))
    with pytest.raises(AptlabError, match=r"^the drafter has other sizes.*draft with a width of the network$"):
        generate_rows(make_tiny_decoder(), PROMPTS, rules=GREEDY, max_new_tokens=3, eos=None, draft=Draft(other))


def test_logits_that_are_no_numbers_are_named():
    net, draft = make_pair()
    draft.net.blocks[0].ffn.down.weight.data.fill_(float("nan"))
    with pytest.raises(AptlabError, match=r"^the drafting width's logits are not finite; use another width, or leave"):
        generate_rows(net, PROMPTS, rules=WARM, max_new_tokens=3, eos=None, draft=draft)
    net.blocks[0].ffn.down.weight.data.fill_(float("nan"))
    with pytest.raises(AptlabError, match=r"^the model's logits are not finite after 0 new tokens"):
        generate_rows(net, PROMPTS, rules=WARM, max_new_tokens=1, eos=None, draft=draft)
