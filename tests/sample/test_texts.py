"""Texts instead of tokens: order, seeds, stop strings, pieces while they are written, and what keywords are refused."""

from __future__ import annotations

import dataclasses
import unicodedata

import pytest

import aptlab
from aptlab.data.tokenizers import ByteTokenizer
from aptlab.errors import AptlabError, ConfigError, DataError
from aptlab.evals.sample import indent_lines
from aptlab.sample import SamplingOptions, SamplingRules, generate_texts, make_sampling_rules
from aptlab.sample.prompts import read_prompt_file
from aptlab.sample.rules import TEMPERATURE
from aptlab.sample.screen import escape_controls


@pytest.fixture(scope="module")
def net():
    return aptlab.build("size=debug", "tokenizer=bytes").eval()


def write(net, prompts, seeds, **rest):
    rest = {"rules": SamplingRules(), "max_new_tokens": 8, **rest}
    return list(generate_texts(net, ByteTokenizer(), prompts, seeds=seeds, **rest))


def test_a_text_does_not_depend_on_the_batch_it_is_written_in(net):
    prompts, seeds = ["a", "a longer one", ""], [1, 2, 3]
    together = write(net, prompts, seeds)
    assert [text.prompt for text in together] == prompts
    assert [text.seed for text in together] == seeds
    assert together == write(net, prompts, seeds, batch=2) == write(net, prompts, seeds, batch=1)
    assert str(together[1]) == "a longer one" + together[1].text


def test_pieces_come_while_a_text_is_written_and_make_up_the_whole(net):
    pieces: dict[int, str] = {}

    def add(index: int, piece: str) -> None:
        pieces[index] = pieces.get(index, "") + piece

    texts = write(net, ["x", "y", "z"], [0, 0, 0], batch=2, max_new_tokens=20, on_text=add)
    assert pieces == {index: text.text for index, text in enumerate(texts)}


def test_seeds_must_be_as_many_as_prompts(net):
    with pytest.raises(AptlabError, match="1 seeds for 2 prompts; give one seed per prompt"):
        write(net, ["a", "b"], [0])


def test_the_keywords_are_the_fields_of_the_rules():
    assert list(SamplingOptions.__annotations__) == [field.name for field in dataclasses.fields(SamplingRules)]


def test_keywords_make_rules_and_an_unknown_one_is_told():
    assert make_sampling_rules({}) == SamplingRules(temperature=TEMPERATURE)
    assert make_sampling_rules({"temperature": 0.0, "top_k": 3}) == SamplingRules(temperature=0.0, top_k=3)
    with pytest.raises(
        ConfigError, match=r"temprature=1: there is no such sampling option; did you mean temperature\?"
    ):
        make_sampling_rules({"temprature": 1})


def test_a_file_of_prompts_is_read_by_its_kind(tmp_path):
    (tmp_path / "a.txt").write_text("one\n\n two\n")
    (tmp_path / "a.jsonl").write_text('{"prompt": "one\\ntwo"}\n')
    assert read_prompt_file(tmp_path / "a.txt") == ("one", " two")
    assert read_prompt_file(tmp_path / "a.jsonl") == ("one\ntwo",)
    with pytest.raises(DataError, match=r"none\.txt cannot be read: No such file"):
        read_prompt_file(tmp_path / "none.txt")


def test_control_characters_are_spelled_out_and_newline_and_tab_stay():
    every = "".join(map(chr, range(160)))
    shown = escape_controls(every)
    assert [char for char in shown if unicodedata.category(char) == "Cc"] == ["\t", "\n"]
    assert escape_controls("\x1b[2J\x07\x9b é\u2028") == r"\x1b[2J\x07\x9b é" + "\u2028"
    assert indent_lines("a\x0cb\rc\nd") == "  | a\\x0cb\\x0dc\n  | d"
