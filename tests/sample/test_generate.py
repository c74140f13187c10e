"""Laws of the loop: the cache changes nothing, a batch changes nothing, a seed is a text."""

from __future__ import annotations

import math

import pytest
import torch

from aptlab.errors import AptlabError
from aptlab.nn.positions.rope import NoRope, YaRN
from aptlab.nn.positions.rotary import LONGEST
from aptlab.nn.smooth import LeftSpin
from aptlab.sample import SamplingRules, draw_uniform, generate_rows, generate_tokens
from aptlab.sample.logits import apply_rules, draw_tokens
from aptlab.testing.tiny import VOCAB, make_tiny_decoder

GREEDY = SamplingRules(temperature=0)
WARM = SamplingRules(temperature=0.9, top_k=30, top_p=0.95, min_p=0.01, repetition_penalty=1.1)
PROMPTS = [[5, 9, 2, 40, 7], [11], [3, 3, 8], [60, 1, 2, 3, 4, 5, 6, 7]]
NEW = 12


def full_forward(net, prompt: list[int], rules: SamplingRules, steps: int, seed: int) -> list[int]:
    """The same loop without a cache: the whole row through the network for each token."""
    row = list(prompt)
    for step in range(steps):
        with torch.no_grad():
            logits = net(torch.tensor([row])).logits[:, -1]
        seen = torch.zeros(1, net.vocab, dtype=torch.bool)
        seen[0, row] = True
        row += draw_tokens(rules, apply_rules(rules, logits, seen), torch.tensor([draw_uniform(seed, step)])).tolist()
    return row[len(prompt) :]


@pytest.mark.parametrize("rules", [GREEDY, WARM], ids=["greedy", "sampled"])
@pytest.mark.parametrize(
    "parts",
    [{}, {"rope": YaRN(factor=4.0, original_len=8)}, {"rope": NoRope()}, {"smooth": LeftSpin}],
    ids=["standard", "yarn", "nope", "left_spin"],
)
def test_cached_decoding_equals_a_full_forward_for_each_token(rules, parts):
    net = make_tiny_decoder(**parts)
    for prompt in PROMPTS[:2]:
        got = generate_tokens(net, [prompt], rules=rules, max_new_tokens=NEW, eos=None, seed=4)
        assert got == [full_forward(net, prompt, rules, NEW, seed=4)]


@pytest.mark.parametrize("rules", [GREEDY, WARM], ids=["greedy", "sampled"])
def test_a_row_in_a_padded_batch_equals_the_row_alone(rules):
    net = make_tiny_decoder()
    alone = [
        generate_tokens(net, [prompt], rules=rules, max_new_tokens=NEW, eos=7, seed=number)[0]
        for number, prompt in enumerate(PROMPTS)
    ]
    assert generate_tokens(net, PROMPTS, rules=rules, max_new_tokens=NEW, eos=7, seed=[0, 1, 2, 3]) == alone


def test_one_seed_is_one_text_and_other_seeds_are_other_texts():
    net = make_tiny_decoder(gain=2.0)
    rows = generate_tokens(net, [[5]] * 4, rules=SamplingRules(), max_new_tokens=NEW, eos=None, seed=[0, 0, 1, 2])
    assert rows[0] == rows[1]
    assert len({tuple(row) for row in rows}) == 3


def test_the_global_generator_neither_matters_nor_moves():
    net = make_tiny_decoder()
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = generate_tokens(net, [[5]], rules=SamplingRules(), max_new_tokens=NEW, eos=None, seed=3)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    assert generate_tokens(net, [[5]], rules=SamplingRules(), max_new_tokens=NEW, eos=None, seed=3) == first


def test_no_new_tokens_and_no_prompts():
    net = make_tiny_decoder()
    assert generate_tokens(net, PROMPTS, rules=GREEDY, max_new_tokens=0, eos=None) == [[], [], [], []]
    assert generate_tokens(net, [], rules=GREEDY, max_new_tokens=3, eos=None) == []


def test_each_row_ends_at_its_own_eos_which_is_not_returned():
    net = make_tiny_decoder()
    free = generate_tokens(net, PROMPTS, rules=GREEDY, max_new_tokens=NEW, eos=None)
    eos = free[0][4]
    rows = generate_rows(net, PROMPTS, rules=GREEDY, max_new_tokens=NEW, eos=eos)
    for row, whole in zip(rows, free, strict=True):
        end = whole.index(eos) if eos in whole else NEW
        assert row.tokens == whole[:end]
        assert row.reason == ("eos" if eos in whole else "length")


def test_on_token_sees_every_token_and_ends_a_row():
    net = make_tiny_decoder()
    heard: list[tuple[int, int]] = []

    def hear(row: int, token: int) -> bool:
        heard.append((row, token))
        return row == 1 and sum(r == 1 for r, _ in heard) == 3

    rows = generate_rows(net, PROMPTS, rules=GREEDY, max_new_tokens=NEW, eos=None, on_token=hear)
    assert [len(row.tokens) for row in rows] == [NEW, 3, NEW, NEW]
    assert [row.reason for row in rows] == ["length", "stop", "length", "length"]
    for number, row in enumerate(rows):
        assert [token for r, token in heard if r == number] == row.tokens


def test_a_keyboard_interrupt_returns_the_text_so_far():
    net = make_tiny_decoder()

    def interrupt(row: int, token: int) -> None:
        counts[row] += 1
        if counts == [4, 4]:
            raise KeyboardInterrupt

    counts = [0, 0]
    free = generate_tokens(net, PROMPTS[:2], rules=GREEDY, max_new_tokens=NEW, eos=None)
    rows = generate_rows(net, PROMPTS[:2], rules=GREEDY, max_new_tokens=NEW, eos=None, on_token=interrupt)
    assert [row.tokens for row in rows] == [whole[:4] for whole in free]
    assert {row.reason for row in rows} == {"interrupted"}


def test_ids_from_vocab_on_are_never_chosen():
    rows = generate_tokens(
        make_tiny_decoder(gain=1.0), [[50]], rules=SamplingRules(), max_new_tokens=60, eos=None, vocab=10
    )
    assert max(rows[0]) < 10


def test_bfloat16_weights_and_training_mode():
    net = make_tiny_decoder().to(torch.bfloat16).train()
    rows = generate_tokens(net, PROMPTS, rules=WARM, max_new_tokens=4, eos=None)
    assert [len(row) for row in rows] == [4] * 4
    assert net.training


@pytest.mark.parametrize(
    ("prompts", "settings", "message"),
    [
        ([[1], []], {}, "prompt 1 has no token; begin a new text with the end-of-text token"),
        ([[1, VOCAB]], {}, f"prompt 0 holds token {VOCAB} and the model knows 0 to {VOCAB - 1}"),
        ([[1]], {"max_new_tokens": -1}, "max_new_tokens=-1 must be 0 or more"),
        ([[1]], {"max_new_tokens": LONGEST}, f"more than the {LONGEST} positions that the model has"),
        ([[1]], {"seed": [1, 2]}, "2 seeds for 1 prompts; give one seed, or one per prompt"),
    ],
)
def test_what_cannot_be_continued_is_refused(prompts, settings, message):
    with pytest.raises(AptlabError, match=message):
        generate_tokens(make_tiny_decoder(), prompts, **{"rules": GREEDY, "max_new_tokens": 2, "eos": None, **settings})


def test_logits_that_are_not_finite_are_an_error():
    net = make_tiny_decoder()
    with torch.no_grad():
        net.embed.weight[3] = math.nan
    with pytest.raises(AptlabError, match=r"logits are not finite after 0 new tokens.*earlier checkpoint"):
        generate_tokens(net, [[3]], rules=SamplingRules(), max_new_tokens=2, eos=None)
