"""Generation where a rule changes its mind: what each policy promises, against full forward passes."""

import functools

import pytest
import torch

from aptlab.errors import AptlabError, ConfigError
from aptlab.nn.positions.rope import Dynamic, LongRoPE, LongRoPE2, PerLayer, Standard, YaRN
from aptlab.nn.shape import Shape
from aptlab.sample import SamplingRules, generate_tokens
from aptlab.sample.loop import DecodingBatch
from aptlab.testing import make_random_tokens, make_tiny_decoder

L = 12  # context that the rules call trained
LONG = (1.0, 1.5, 2.0, 3.0, 4.0, 4.0, 5.0, 6.0)
RULES = {
    "longrope": LongRoPE(original_len=L, factor=4.0, long=LONG),
    "longrope2": LongRoPE2(original_len=L, factor=4.0, long=LONG, attention_factor=1.2),
    "longrope on cos and sin": LongRoPE(original_len=L, factor=4.0, long=LONG, temperature_on="cos_sin"),
    "dynamic": Dynamic(original_len=L),
    "dynamic, paper": Dynamic(original_len=L, law="paper"),
    "one layer of three": PerLayer(rules=(Standard(), Dynamic(original_len=L), Standard(base=500.0))),
}
PROMPTS = [[5, 9, 2, 40, 7, 13, 22, 3], [11], [3, 3, 8, 1, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39]]
NEW = 9
rules = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)


def greedy(crossing):
    return SamplingRules(temperature=0, crossing=crossing)


@torch.no_grad()
def full(net, prompt, steps, final=None):
    """Greedy text without a cache, and the logits of each step; `final` is the length that the rule is told."""
    row, logits = list(prompt), []
    for _ in range(steps):
        lengths = None if final is None else torch.full((1, len(row)), final)
        logits.append(net(torch.tensor([row]), lengths=lengths).logits[0, -1])
        row.append(int(logits[-1].argmax()))
    return row[len(prompt) :], torch.stack(logits)


@rules
@pytest.mark.parametrize("prompt", PROMPTS, ids=len)
def test_reading_again_writes_what_a_fresh_model_writes_at_each_step(rule, prompt):
    net = make_tiny_decoder(rope=rule)
    written = generate_tokens(net, [prompt], rules=greedy("reprefill"), max_new_tokens=NEW, eos=None)
    assert written == [full(net, prompt, NEW)[0]]


@rules
def test_reading_again_in_a_batch_writes_what_each_row_writes_alone(rule):
    """Rows cross at different steps; pads stand before the shorter ones."""
    net = make_tiny_decoder(rope=rule)
    written = generate_tokens(net, PROMPTS, rules=greedy("reprefill"), max_new_tokens=NEW, eos=None)
    assert written == [full(net, prompt, NEW)[0] for prompt in PROMPTS]


@rules
def test_logits_after_reading_again_are_those_of_a_fresh_model(rule):
    net = make_tiny_decoder(rope=rule)
    tokens, expected = full(net, PROMPTS[0], NEW)
    got = stepped(net, "reprefill", PROMPTS[0], tokens)
    assert (got - expected).abs().max() < 2e-5


@torch.inference_mode()
def stepped(net, crossing, prompt, tokens):
    """Logits at each step of a given text."""
    decoding = DecodingBatch(net, [prompt], greedy(crossing), len(tokens), None)
    logits = [decoding.logits_BV[0]]
    for token in tokens[:-1]:
        decoding.chosen_B = torch.tensor([token])
        decoding.feed()
        logits.append(decoding.logits_BV[0])
    return torch.stack(logits)


@rules
@pytest.mark.parametrize("prompt", PROMPTS, ids=len)
def test_admitting_writes_by_the_final_length_from_the_start(rule, prompt):
    net = make_tiny_decoder(rope=rule)
    tokens, expected = full(net, prompt, NEW, final=len(prompt) + NEW)
    assert generate_tokens(net, [prompt], rules=greedy("admit"), max_new_tokens=NEW, eos=None) == [tokens]
    assert (stepped(net, "admit", prompt, tokens) - expected).abs().max() < 2e-5


@pytest.mark.parametrize("crossing", ["reprefill", "rerotate", "error"])
@rules
def test_policies_agree_where_nothing_is_crossed(rule, crossing):
    net, new = make_tiny_decoder(rope=rule), L - len(PROMPTS[0])
    written = generate_tokens(net, [PROMPTS[0]], rules=greedy(crossing), max_new_tokens=new, eos=None)
    assert written == [full(net, PROMPTS[0], new)[0]]


@rules
def test_an_error_names_the_length_and_the_way_out(rule):
    net = make_tiny_decoder(rope=rule)
    message = (
        rf"the position rule changes at {L + 1} tokens, and crossing=error; use crossing=admit to choose by the final "
        r"length, or crossing=reprefill to read the text again"
    )
    with pytest.raises(AptlabError, match=message):
        generate_tokens(net, [PROMPTS[0]], rules=greedy("error"), max_new_tokens=NEW, eos=None)


@pytest.mark.parametrize("crossing", ["admit", "reprefill", "rerotate", "error"])
def test_rules_that_do_not_go_by_length_cross_nothing(crossing):
    net = make_tiny_decoder(rope=YaRN(original_len=L))
    written = generate_tokens(net, [PROMPTS[0]], rules=greedy(crossing), max_new_tokens=NEW, eos=None)
    assert written == [full(net, PROMPTS[0], NEW)[0]]


def test_an_unknown_policy_is_refused():
    with pytest.raises(ConfigError, match=r"crossing='ignore'; allowed: admit, reprefill, rerotate, error"):
        SamplingRules(crossing="ignore")


ONE = Shape(dim=32, depth=1, heads=4, kv_heads=2, head_dim=16, hidden=48)


@pytest.mark.parametrize("name", [name for name in RULES if name != "one layer of three"])
def test_rotating_keys_again_is_exact_in_a_model_of_one_layer(name):
    """Keys of the first layer come from embeddings, which know no angle."""
    net = make_tiny_decoder(rope=RULES[name], shape=ONE)
    tokens, expected = full(net, PROMPTS[0], NEW)
    assert (stepped(net, "rerotate", PROMPTS[0], tokens) - expected).abs().max() < 2e-5


@torch.no_grad()
def stale(net, prompt, tokens):
    """Logits where keys stay as they were rotated, as caches of other projects leave them."""
    lengths = torch.tensor([len(prompt)])
    cache = net.new_cache(1, len(prompt) + len(tokens), lengths=lengths)
    logits = [net(torch.tensor([prompt]), cache=cache).logits[0, -1]]
    for token in tokens[:-1]:
        lengths += 1
        logits.append(net(torch.tensor([[token]]), cache=cache).logits[0, -1])
    return torch.stack(logits)


def kl(exact, other):
    """Mean over steps of KL(exact || other), in nats."""
    exact, other = exact.log_softmax(-1), other.log_softmax(-1)
    return (exact.exp() * (exact - other)).sum(-1).mean().item()


@functools.cache
def errors(name):
    """KL after the crossing, mean of eight seeds: (keys rotated again, stale keys)."""
    again, old = 0.0, 0.0
    for seed in range(8):
        net = make_tiny_decoder(rope=RULES[name], seed=seed, gain=4.0)
        prompt = make_random_tokens(1, L, seed=seed)[0].tolist()
        tokens = make_random_tokens(1, NEW, seed=100 + seed)[0].tolist()
        exact = torch.stack([forward(net, prompt + tokens[:i]) for i in range(1, NEW)])
        again += kl(exact, stepped(net, "rerotate", prompt, tokens)[1:]) / 8
        old += kl(exact, stale(net, prompt, tokens)[1:]) / 8
    return again, old


@torch.no_grad()
def forward(net, row):
    return net(torch.tensor([row])).logits[0, -1]


@pytest.mark.parametrize("name", ["longrope", "longrope2", "dynamic"])
def test_rotating_keys_again_is_near_and_stale_keys_are_farther(name):
    again, old = errors(name)
    print(name, again, old)
    assert again < 0.5 * old
