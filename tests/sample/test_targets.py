"""Targets of sources: cached beams are the uncached ones, a wide beam finds the best there is, texts in and out."""

from __future__ import annotations

import functools
import math

import pytest
import torch
from tests.models.making_pairs import make_pair_net
from tests.reference.encoder_decoder import best_targets

from aptlab.data.tokenizers import ByteTokenizer
from aptlab.errors import AptlabError, ConfigError
from aptlab.nn.attention.cache import select_state_rows
from aptlab.sample.beam import BeamRule, search_beams
from aptlab.sample.rules import SamplingRules
from aptlab.sample.targets import SourceCodec, TargetOptions, find_source_warning, generate_targets, make_source_codec

VOCAB, ENDS, START = 7, (5, 6), 6
SOURCES = [[1, 2, 3, 6], [4, 6], [0, 0, 1, 2, 3, 4, 6]]
GREEDY = SamplingRules(temperature=0)


@pytest.fixture(scope="module")
def net():
    return make_pair_net(vocab=VOCAB, gain=25.0).double()


def search(net, sources=SOURCES, *, beams=3, penalty=1.0, longest=6, cached=True):
    rule = BeamRule(beams=beams, length_penalty=penalty)
    return search_beams(net, sources, rule=rule, start=START, max_new_tokens=longest, eos=ENDS, cached=cached)


@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("beams", [1, 2, 4])
def test_cached_beams_are_uncached_beams_and_a_batch_is_its_sources_alone(net, beams, penalty):
    cached, plain = (search(net, beams=beams, penalty=penalty, cached=flag) for flag in (True, False))
    alone = [search(net, [source], beams=beams, penalty=penalty)[0] for source in SOURCES]
    for other in (plain, alone):
        for got, expected in zip(cached, other, strict=True):
            assert [found.tokens for found in got] == [found.tokens for found in expected]
            assert [found.score for found in got] == pytest.approx([found.score for found in expected], abs=1e-9)


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_a_beam_as_wide_as_the_tree_finds_the_best_of_all_targets(net, penalty):
    for source, found in zip(SOURCES, search(net, beams=130, penalty=penalty, longest=3), strict=True):

        @functools.cache  # the enumeration asks for every beginning again and again
        def next_log_probabilities(tokens, source=tuple(source)):
            given = torch.tensor([[START, *tokens]])
            return net(torch.tensor([list(source)]), decoder_tokens=given).logits[0, -1].log_softmax(-1).tolist()

        best = best_targets(next_log_probabilities, vocab=VOCAB, ends=ENDS, longest=3, penalty=penalty)
        assert [hypothesis.tokens for hypothesis in found[:10]] == [tokens for _, tokens in best[:10]]
        assert found[0].score == pytest.approx(best[0][0], abs=1e-9)


def test_one_beam_is_the_likeliest_token_each_time(net):
    codec = SourceCodec(TokenNames())
    options = TargetOptions(rules=GREEDY, max_new_tokens=6)
    greedy = [text.tokens for text in generate_targets(net, codec, ["abc", "e"], options=options, seeds=[0, 0])]
    rule = BeamRule(beams=1)
    found = search_beams(net, [[0, 1, 2, 6], [4, 6]], rule=rule, start=START, max_new_tokens=6, eos=START)
    assert [hypotheses[0].tokens for hypotheses in found] == greedy


class TokenNames(ByteTokenizer):
    """Letters a to f as ids 0 to 5, eos 6."""

    vocab_size = VOCAB
    eos = START

    def encode(self, text, *, specials=False):
        return [ord(letter) - ord("a") for letter in text]

    def decode(self, ids, *, specials=False):
        return "".join(chr(ord("a") + token) for token in ids if token < START)


@pytest.mark.parametrize("rules", [GREEDY, SamplingRules(temperature=1.0), SamplingRules(repetition_penalty=1.3)])
def test_a_target_is_the_same_in_any_batch(net, rules):
    codec = SourceCodec(TokenNames())
    texts = ["abc", "d", "aabbccdd"]

    def write(batch):
        options = TargetOptions(rules=rules, max_new_tokens=5, batch=batch)
        return [text.tokens for text in generate_targets(net, codec, texts, options=options, seeds=[3, 4, 5])]

    assert write(3) == write(2) == write(1)


def test_sentinels_are_words_in_text():
    codec = make_source_codec(ByteTokenizer(), {"data": {"rows": {"sentinels": 3}}})
    assert codec.vocab == 260
    assert codec.encode_source("a<extra_id_0>中<extra_id_2>") == [97, 257, 0xE4, 0xB8, 0xAD, 259, 256]
    assert codec.decode_target([257, 0xE4, 0xB8, 0xAD, 259, 97]) == "<extra_id_0>中<extra_id_2>a"
    assert make_source_codec(ByteTokenizer(), {"data": {}}).encode_source("<e")[:2] == [60, 101]
    with pytest.raises(AptlabError, match="<extra_id_3>: the model has the sentinels 0 to 2"):
        codec.encode_source("<extra_id_3>")


def test_a_stop_string_ends_a_target_and_one_text_comes_as_it_is_written():
    net, codec = make_pair_net(vocab=257), SourceCodec(ByteTokenizer())
    whole, pieces = {}, []
    for beams in (1, 2):
        options = TargetOptions(rules=GREEDY, max_new_tokens=8, beams=beams)
        (text,) = generate_targets(net, codec, ["中文"], options=options, seeds=[0])
        whole[beams] = text
        if not text.text:
            continue
        options = TargetOptions(rules=GREEDY, max_new_tokens=8, beams=beams, stop=[text.text[-1]])
        show = generate_targets(net, codec, ["中文"], options=options, seeds=[0], on_text=lambda _, p: pieces.append(p))
        (cut,) = show
        assert cut.reason == "stop"
        assert cut.text == text.text[: text.text.find(text.text[-1])]
    assert whole[1].prompt == "中文"


def test_what_cannot_be_written_says_so(net):
    codec = SourceCodec(TokenNames())
    options = TargetOptions(rules=GREEDY, max_new_tokens=2, beams=2)
    for sources, seeds, message in (
        ([""], [0], "there is no source to read; give one with prompt="),
        (["a", "a"], [0, 1], "beams=2 finds the same target for the same source; use samples=1, or beams=1"),
        (["a"], [0, 1], "2 seeds for 1 sources; give one seed per source"),
        (["z"], [0], "source 0 holds token 25 and the model knows 0 to 6"),
    ):
        with pytest.raises(AptlabError, match=message):
            list(generate_targets(net, codec, sources, options=options, seeds=seeds))
    with pytest.raises(ConfigError, match="max_new_tokens=0 must be 1 or more"):
        search(net, longest=0)
    broken = make_pair_net(vocab=VOCAB)
    with torch.no_grad():
        broken.head.weight.fill_(math.nan)
    with pytest.raises(AptlabError, match="the model's logits are not finite after 0 new tokens"):
        search(broken)
    assert find_source_warning(codec, ["abcd"], 5) is None
    warning = find_source_warning(codec, ["abcd"], 4)
    assert warning is not None
    assert "a source of 5 tokens is more than the trained context=4" in warning


def test_states_of_a_cache_follow_their_rows():
    rows = torch.tensor([1, 1])
    state = {"a": (torch.tensor([[1.0], [2.0]]), 3), "b": None}
    assert select_state_rows(state, rows)["a"][0].tolist() == [[2.0], [2.0]]
    assert select_state_rows(state, rows)["a"][1] == 3
