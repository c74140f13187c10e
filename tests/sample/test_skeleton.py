"""Soft tokens in front of prompts, and the session that makes them: on a tiny decoder, then through the command."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from tests.commands.trained import make_run, write_texts

import aptlab
from aptlab.checkpoint import load_checkpoint, save_checkpoint
from aptlab.commands import generate as command
from aptlab.data.tokenizers import ByteTokenizer
from aptlab.errors import AptlabError, CheckpointError, ConfigError
from aptlab.models.edit import extract_width
from aptlab.models.strengths import measure_strengths
from aptlab.nn.attention import FullAttention
from aptlab.nn.ffn import MatFormer, SwiGLU
from aptlab.nn.positions.absolute import LearnedPositions
from aptlab.nn.positions.bias import ALiBi
from aptlab.nn.positions.rope import Dynamic, NoRope
from aptlab.nn.shape import Shape
from aptlab.nn.smooth import LeftSpin, LeftSpinSeed, MemorySmooth
from aptlab.nn.window import SlidingWindow
from aptlab.sample import SamplingRules, generate_rows
from aptlab.sample.session import open_session, split_windows
from aptlab.sample.skeleton_rule import SkeletonRule, SkeletonTexts
from aptlab.sample.speculative import Draft
from aptlab.sample.texts import SoftPrompt
from aptlab.testing.tiny import make_random_tokens, make_tiny_decoder

SHAPE = Shape(dim=16, depth=2, heads=2, kv_heads=1, head_dim=8, hidden=16)
GREEDY = SamplingRules(temperature=0)
PROMPTS = [[5, 6, 7], [9], [1, 2, 3, 4, 5, 6]]


def draw_prefix(tokens: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(tokens, SHAPE.dim, generator=torch.Generator().manual_seed(seed))


PREFIXES = [draw_prefix(6), None, draw_prefix(2, 1)]


def write(net, prompts, prefixes=None, *, steps=6, draft=None, rules=GREEDY):
    rows = generate_rows(net, prompts, rules=rules, max_new_tokens=steps, eos=None, prefixes=prefixes, draft=draft)
    return [row.tokens for row in rows]


def write_uncached(net, prompt, prefix, steps=6):
    """The likeliest tokens, each from a pass over soft tokens, prompt and all before it."""
    tokens = list(prompt)
    for _ in range(steps):
        embeds = net.embed_tokens(torch.tensor([tokens]), None)
        embeds = embeds if prefix is None else torch.cat((prefix.unsqueeze(0), embeds), 1)
        tokens.append(int(net(embeds=embeds).logits[0, -1].argmax()))
    return tokens[len(prompt) :]


NETS = {
    "rotary": {},
    "sliding": {"attention": partial(FullAttention, window=SlidingWindow(size=4))},
    "bias": {"rope": NoRope(), "bias": ALiBi},
    "learned": {"rope": NoRope(), "embed": partial(LearnedPositions, length=32)},
    "left_spin": {"smooth": LeftSpin},
}


@torch.no_grad()
@pytest.mark.parametrize("name", NETS)
def test_a_batch_with_a_cache_writes_what_each_row_writes_alone_without_one(name):
    net = make_tiny_decoder(shape=SHAPE, tied=False, **NETS[name])
    expected = [write_uncached(net, prompt, prefix) for prompt, prefix in zip(PROMPTS, PREFIXES, strict=True)]
    assert write(net, PROMPTS, PREFIXES) == expected
    assert write(net, PROMPTS[:1], PREFIXES[:1]) == expected[:1]
    plain = write(net, PROMPTS)
    assert plain[0] != expected[0]
    assert plain[1] == expected[1]
    assert write(net, PROMPTS, [None, draw_prefix(0), None]) == plain


@torch.no_grad()
def test_without_a_prefix_the_very_pass_of_before_runs():
    net = make_tiny_decoder(shape=SHAPE)
    seen = []
    net.register_forward_pre_hook(lambda _, args, given: seen.append((len(args), "embeds" in given)), with_kwargs=True)
    write(net, PROMPTS, [None] * 3, steps=2)
    assert seen == [(1, False)] * 2


@torch.no_grad()
def test_a_rule_that_chooses_by_length_counts_the_soft_tokens_and_reads_them_again():
    net = make_tiny_decoder(shape=SHAPE, rope=Dynamic(factor=4.0, original_len=10))
    for crossing in ("admit", "reprefill"):
        rules = SamplingRules(temperature=0, crossing=crossing)
        batch = write(net, PROMPTS, PREFIXES, rules=rules)
        assert batch == [
            write(net, [prompt], [prefix], rules=rules)[0] for prompt, prefix in zip(PROMPTS, PREFIXES, strict=True)
        ]
    assert batch[0] == write_uncached(net, PROMPTS[0], PREFIXES[0])


@torch.no_grad()
def test_a_draft_reads_the_soft_tokens_too():
    nested = partial(SwiGLU, nested=MatFormer(granularities=(1.0, 0.5)))
    net = make_tiny_decoder(shape=SHAPE, ffn=nested)
    draft = Draft(extract_width(net, 0.5, share=True).eval(), 2)
    assert write(net, PROMPTS, PREFIXES, draft=draft) == write(net, PROMPTS, PREFIXES)


@pytest.mark.parametrize(
    ("prefixes", "message"),
    [
        ([None], "1 prefixes for 3 prompts; give one per prompt, None for none"),
        ([None, torch.zeros(6, 8), None], r"prefix 1 has sizes \[6, 8\]; the model takes \[P, 16\]"),
        ([torch.zeros(30, 16), None, None], "prompt 0 has 33 tokens, with max_new_tokens=6 more than the 32 positions"),
    ],
)
def test_prefixes_that_do_not_fit_are_told(prefixes, message):
    net = make_tiny_decoder(shape=SHAPE, **NETS["learned"])
    with pytest.raises(AptlabError, match=message):
        write(net, PROMPTS, prefixes)


@pytest.mark.parametrize("smooth", [LeftSpin, LeftSpinSeed, MemorySmooth])
def test_strengths_are_the_token_means_of_the_traces_and_change_nothing(smooth):
    net = make_tiny_decoder(shape=SHAPE, smooth=smooth)
    tokens = make_random_tokens(2, 7)
    traced = net.hidden(tokens, trace=True)
    hidden, strength_BT = measure_strengths(net, tokens=tokens)
    assert strength_BT is not None
    assert strength_BT.shape == tokens.shape
    assert torch.equal(hidden.hidden, traced.hidden)
    mean = torch.stack([values["strength"] for values in traced.traces.values()]).mean()
    torch.testing.assert_close(strength_BT.mean(), mean)


def test_windows_hold_every_token_once_and_the_last_is_whole():
    for count in range(1, 12):
        windows = split_windows(range(count), 4)
        assert [token for window in windows for token in window] == list(range(count))
        assert len(windows[-1]) == min(count, 4)
        assert max(map(len, windows)) <= 4
    assert split_windows(range(9), None) == [list(range(9))]


# Sessions


def begin(rule: SkeletonRule, **parts):
    net = make_tiny_decoder(shape=SHAPE, vocab=257, **parts)
    return open_session(rule, net, ByteTokenizer())


def test_a_session_fills_fields_from_texts_prompts_and_spikes(tmp_path):
    texts = SkeletonTexts(constraints="be brief", style_preference="plain")
    session = begin(SkeletonRule(texts=texts, momentum=0.0, spikes=0.25), smooth=LeftSpin)
    assert session.skeleton.filled == ("constraints", "style_preference")
    read = session.net.hidden(torch.tensor([list(b"be brief")])).hidden[0].mean(0)
    torch.testing.assert_close(session.skeleton.states_FC[1], read)
    (prompt,) = session.prepare(["some words"])
    assert isinstance(prompt, SoftPrompt)
    assert (prompt.text, list(prompt.tokens), prompt.prefix.shape) == ("some words", list(b"some words"), (2, 16))
    assert session.skeleton.filled == ("topic", "constraints", "style_preference", "spike_regions")
    embeds = torch.cat((prompt.prefix, session.net.embed(torch.tensor(list(b"some words"))))).unsqueeze(0)
    hidden, strength = measure_strengths(session.net, embeds=embeds)
    assert strength is not None
    torch.testing.assert_close(session.skeleton.states_FC[0], hidden.hidden[0, 2:].mean(0))
    strongest = strength[0, 2:].topk(3).indices  # a quarter of ten, rounded up
    torch.testing.assert_close(session.skeleton.states_FC[5], hidden.hidden[0, 2:][strongest].mean(0))


def test_a_topic_that_is_given_does_not_follow_the_prompts_and_an_empty_prompt_says_nothing():
    session = begin(SkeletonRule(texts=SkeletonTexts(topic="ships")))
    before = session.skeleton.states_FC.clone()
    session.prepare(["some words"])
    assert torch.equal(session.skeleton.states_FC, before)
    assert any("spike_regions stays as it was" in note for note in session.notes)
    other = begin(SkeletonRule(window=4))
    other.prepare([""])
    assert other.skeleton.filled == ()


def test_windows_of_a_prompt_are_carried_into_its_last_and_no_prompt_knows_another():
    session = begin(SkeletonRule(window=4, momentum=0.5))
    short, long = session.prepare(["abc", "0123456789"])
    assert (len(short.prefix), len(long.prefix)) == (0, 1)
    assert bytes(long.tokens) == b"6789"
    assert "10 prompt tokens are 3 windows of 4" in session.notes[-1]
    alone = begin(SkeletonRule(window=4, momentum=0.5)).prepare(["0123456789"])[0]
    assert torch.equal(alone.prefix, long.prefix)
    changed = begin(SkeletonRule(window=4, momentum=0.5)).prepare(["0x23456789"])[0]
    assert not torch.equal(changed.prefix, long.prefix)


def test_a_linear_skeleton_is_fitted_to_the_embedding_and_the_file_decides_afterwards(tmp_path):
    rule = SkeletonRule(file=str(tmp_path / "notes.pt"), compress="linear", texts=SkeletonTexts(topic="ships"))
    session = begin(rule)
    session.save()
    other = begin(SkeletonRule(file=rule.file))
    assert torch.equal(other.skeleton.prefix(), session.skeleton.prefix())
    assert "skeleton: compress=linear is that of the file" in other.notes
    with torch.no_grad():
        other.net.embed.weight.add_(1)
    foreign = open_session(SkeletonRule(file=rule.file), other.net, ByteTokenizer())
    assert any("was written with other weights" in note for note in foreign.notes)
    wide = make_tiny_decoder(shape=Shape(dim=32, depth=1, heads=2, kv_heads=1, head_dim=8, hidden=16), vocab=257)
    with pytest.raises(CheckpointError, match=r"notes\.pt has dim=16, and the model has 32; give another file"):
        open_session(SkeletonRule(file=rule.file), wide, ByteTokenizer())


# The command


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("session")
    path = make_run(folder / "outputs", texts=write_texts(folder / "texts.jsonl"))
    state = load_checkpoint(path)
    for name, weight in state["state_dict"].items():
        if "blocks" in name and weight.ndim > 1:
            weight.mul_(8)  # at the start of training attention hardly moves the logits
    save_checkpoint(state, path)
    return folder / "outputs"


@pytest.fixture
def run(root, tmp_path, capsys):
    def write_text(*args: str) -> tuple[dict, str]:
        words = [f"paths.root='{root}'", "device=cpu", "max_new_tokens=8", "temperature=1", "out=a.jsonl"]
        assert command.run([*words, *args]) == 0
        return json.loads((tmp_path / "a.jsonl").read_text().splitlines()[0]), capsys.readouterr().err

    return write_text


def test_a_session_is_carried_by_its_file_and_changes_what_is_written(run, tmp_path):
    plain, said = run("prompt=abc")
    assert "skeleton" not in said
    first, said = run("prompt=abc", "skeleton.file=notes, 1.pt")
    assert first == plain  # nothing was known yet
    assert "skeleton: topic -> notes, 1.pt" in said
    second, said = run("prompt=abc", "skeleton.file=notes, 1.pt", "skeleton.texts.constraints=a, [b]=c")
    assert "skeleton: topic <- notes, 1.pt" in said
    assert "skeleton: topic, constraints -> notes, 1.pt" in said
    assert second["prompt"] == "abc"
    assert second["tokens"] != plain["tokens"]
    assert run("prompt=abc")[0] == plain
    for option in ("samples=2", "batch=1", "skeleton.texts.topic=ships"):
        run("prompt=abc", "skeleton.file=notes, 1.pt", option)


def test_a_long_prompt_goes_on_from_its_last_window_and_says_so(run):
    row, said = run("prompt=" + "0123456789" * 3, "skeleton.window=8")
    assert "30 prompt tokens are 4 windows of 8" in said
    assert "warning" not in said
    assert row["prompt"] == "0123456789" * 3
    assert "-> no file" in said


def test_a_prompt_that_cannot_be_continued_leaves_the_file_as_it_was(run, tmp_path, monkeypatch):
    run("prompt=abc", "skeleton.file=notes.pt")
    before = (tmp_path / "notes.pt").read_bytes()
    monkeypatch.setattr("aptlab.models.decoder.LONGEST", 20)
    with pytest.raises(AptlabError, match=r"prompt 0 has 19 tokens, with max_new_tokens=8 more than the 20 positions"):
        run("prompt=" + "x" * 18, "skeleton.file=notes.pt")
    assert (tmp_path / "notes.pt").read_bytes() == before


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("skeleton.texts.topik=x", r"skeleton\.texts\.topik: .*did you mean .*topic"),
        ("skeleton.compress=pca", r"skeleton\.compress: .*mean"),
        ("skeleton.momentum=1", r"skeleton\.momentum: must be in \[0, 1\)"),
        ("skeleton.window=0", r"skeleton\.window: must be"),
    ],
)
def test_options_that_are_none_are_told(word, message):
    with pytest.raises(ConfigError, match=message):
        command.read_generate_request([word])


def test_a_prompt_behind_soft_tokens_goes_through_the_api(root):
    model = aptlab.load(next(root.rglob("*.ckpt")), device="cpu")
    soft = SoftPrompt("abc", list(b"abc"), torch.randn(2, model.net.shape.dim))
    (plain, changed) = aptlab.generate(model, ["abc", soft], temperature=1.0, max_new_tokens=8)
    assert changed.prompt == plain.prompt == "abc"
    assert changed.tokens != plain.tokens
