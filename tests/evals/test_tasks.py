"""Prompts of passkey, needle and RULER: exact in tokens, the same every time, and solvable from their text alone."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections import Counter

import pytest

from aptlab.data.tokenizers import ByteTokenizer
from aptlab.errors import AptlabError, ConfigError, DataError
from aptlab.evals.tasks import (
    CommonWords,
    FrequentWords,
    ListedTexts,
    NeedleTask,
    PasskeyTask,
    QuestionAnswering,
    TaskSampler,
    build_ruler_tasks,
)
from aptlab.evals.tasks.counting import compute_zeta
from aptlab.evals.tasks.haystack import PIECE, insert_sentences
from aptlab.evals.tasks.rng import KeyedRandom
from tests.evals.making import BODIES, documents, tokenizer
from tests.reference.ruler import solve

TASKS = {**build_ruler_tasks(), "passkey": PasskeyTask(), "needle": NeedleTask(haystack="text")}
KINDS = ["bytes", "bpe", "file"]


@functools.cache
def samples(name: str, kind: str, length: int, seed: int = 0) -> TaskSampler:
    return TaskSampler(TASKS[name], tokenizer=tokenizer(kind), length=length, texts=documents(), seed=seed)


def prompt(sample, kind: str) -> str:
    return tokenizer(kind).decode(sample.tokens)


def test_ruler_has_the_published_tasks_with_the_published_numbers():
    tasks = build_ruler_tasks()
    assert list(tasks) == [
        *("niah_single_1", "niah_single_2", "niah_single_3", "niah_multikey_1", "niah_multikey_2", "niah_multikey_3"),
        *("niah_multivalue", "niah_multiquery", "vt", "cwe", "fwe", "qa_1", "qa_2"),
    ]
    assert tasks["niah_single_1"] == NeedleTask(name="niah_single_1", haystack="noise")
    assert tasks["niah_multikey_1"].parameters()["keys"] == 4
    assert tasks["niah_multivalue"].parameters()["values"] == 4
    assert tasks["niah_multiquery"].parameters()["queries"] == 4
    assert tasks["vt"].parameters() == {"chains": 1, "hops": 4}
    assert tasks["cwe"].parameters() == {"common": 10, "often": 30, "rarely": 3}
    assert tasks["fwe"].parameters() == {"alpha": 2.0, "top": 3}
    assert {name: task.published for name, task in tasks.items()} == {
        **{name: 128 for name in tasks if name.startswith("niah")},
        "vt": 30,
        "cwe": 120,
        "fwe": 50,
        "qa_1": 32,
        "qa_2": 32,
    }


@pytest.mark.parametrize("length", [512, 777, 2048])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", TASKS)
def test_a_prompt_has_its_exact_length_and_its_answer_is_found_from_its_text_alone(name, kind, length):
    made = samples(name, kind, length)
    for index in range(4):
        sample = made.make(index)
        assert len(sample.tokens) + sample.budget == length
        assert len(sample.answer) <= sample.budget
        text = prompt(sample, kind)
        found = solve(name, text)
        if name in ("cwe", "fwe"):  # words of equal count have no order
            assert set(found) == set(sample.answers)
        else:
            assert found == list(sample.answers)
        answer_text = tokenizer(kind).decode([*sample.tokens, *sample.answer])[len(text) :]
        assert answer_text == sample.meta["answer"]
        assert all(answer in answer_text for answer in sample.answers)


@pytest.mark.parametrize("kind", ["bytes", "bpe"])
@pytest.mark.parametrize("name", TASKS)
def test_a_prompt_is_what_the_tokenizer_writes_for_its_text(name, kind):
    sample = samples(name, kind, 640).make(0)
    assert tokenizer(kind).encode(prompt(sample, kind)) == list(sample.tokens)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", TASKS)
def test_the_question_span_holds_the_question_and_nothing_of_the_haystack(name, kind):
    sample = samples(name, kind, 640).make(1)
    first, last = sample.question
    assert last == len(sample.tokens)
    text = tokenizer(kind).decode(sample.tokens[first:last])
    assert prompt(sample, kind).endswith(text.strip())
    begin = "What is the pass key?" if name == "passkey" else "Question: "
    assert 0 <= text.index(begin) <= (8 if kind == "file" else 2)  # its first token may hold a word of the haystack
    if sample.match == "all" and name != "passkey":
        assert not any(answer in text for answer in sample.answers)


@pytest.mark.parametrize("kind", KINDS)
def test_the_evidence_spans_hold_the_facts(kind):
    sample = samples("niah_multiquery", kind, 900).make(0)
    spans = sample.meta["evidence"]
    assert len(spans) == len(sample.answers)
    for (first, last), value in zip(spans, sample.answers, strict=True):
        assert value in tokenizer(kind).decode(sample.tokens[max(first - 1, 0) : last + 1])


@pytest.mark.parametrize("kind", ["bytes", "bpe"])
@pytest.mark.parametrize("name", ["passkey", "needle"])
def test_the_needle_is_at_the_depth_asked_for_in_tokens(name, kind):
    made = samples(name, kind, 4096)
    for depth in (0.0, 0.25, 0.5, 0.75, 1.0):
        for index in range(3):
            sample = made.make(index, depth)
            assert sample.meta["asked_depth"] == depth
            assert sample.depth == pytest.approx(depth, abs=0.05)


def test_other_depths_are_other_samples_and_a_seed_makes_others_yet():
    made = samples("passkey", "bytes", 512)
    answers = {made.make(0, depth).answers for depth in (0.0, 0.5, 1.0)}
    answers |= {samples("passkey", "bytes", 512, seed=1).make(0, 0.0).answers, made.make(1, 0.0).answers}
    assert len(answers) == 5


@pytest.mark.parametrize("name", TASKS)
def test_a_sample_depends_on_nothing_but_seed_task_length_depth_and_index(name):
    made = TaskSampler(TASKS[name], tokenizer=tokenizer("bytes"), length=600, texts=documents(), seed=4)
    late = [made.make(index) for index in range(3)][2]
    assert TaskSampler(TASKS[name], tokenizer=tokenizer("bytes"), length=600, texts=documents(), seed=4).make(2) == late


def test_another_process_makes_the_same_sample():
    code = (
        "from aptlab.data.tokenizers import ByteTokenizer\n"
        "from aptlab.evals.tasks import TaskSampler, build_ruler_tasks\n"
        "import hashlib; digest = hashlib.sha256(); samplers = "
        "[TaskSampler(t, tokenizer=ByteTokenizer(), length=900) for t in build_ruler_tasks().values()]; "
        "[digest.update(bytes(one.make(1).tokens)) for one in samplers]; "
        "print(digest.hexdigest())"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True, env={"PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1


def test_short_lengths_take_smaller_forms_and_long_ones_the_published_ones():
    assert samples("cwe", "bytes", 512).task == CommonWords(name="cwe", common=3, often=4, rarely=1)
    assert samples("cwe", "bytes", 8192).task == TASKS["cwe"]
    short = TaskSampler(TASKS["niah_multiquery"], tokenizer=tokenizer("bytes"), length=400, texts=documents())
    assert short.task.parameters()["queries"] < 4
    assert samples("niah_multiquery", "bytes", 2048).task == TASKS["niah_multiquery"]
    assert samples("qa_2", "bytes", 512).task.parameters()["sentences"] < 3
    for name in TASKS:
        assert samples(name, "bytes", 8192).task == TASKS[name]


def test_a_length_that_is_too_short_is_an_error_that_names_the_shortest():
    with pytest.raises(
        ConfigError,
        match=r"^lengths: niah_multikey_3 needs at least \d+ tokens with this tokenizer, got 256; ask for longer",
    ):
        TaskSampler(TASKS["niah_multikey_3"], tokenizer=tokenizer("bytes"), length=256)


def test_the_shortest_length_named_does():
    with pytest.raises(ConfigError) as error:
        TaskSampler(PasskeyTask(), tokenizer=tokenizer("bytes"), length=64)
    need = int(str(error.value).split("at least ")[1].split()[0])
    assert len(TaskSampler(PasskeyTask(), tokenizer=tokenizer("bytes"), length=need).make(0, 0.5).tokens) == need - 10


def test_the_published_budget_is_taken_and_an_answer_that_does_not_fit_in_it_is_an_error():
    made = TaskSampler(PasskeyTask(), tokenizer=tokenizer("bytes"), length=600, budget="published")
    assert made.budget == 32
    assert len(made.make(0).tokens) == 568
    long = TaskSampler(TASKS["vt"], tokenizer=tokenizer("bytes"), length=600, budget="published")
    with pytest.raises(AptlabError, match=r"vt: no prompt of exactly 570 tokens whose answer has at most 30 tokens"):
        long.make(0)


def test_common_words_come_as_often_as_they_should():
    sample = samples("cwe", "bytes", 8192).make(0)
    text = prompt(sample, "bytes").partition("\n")[2].rpartition("\nQuestion")[0]
    counts = Counter(word for word in text.split() if word.isalpha())
    assert {counts[word] for word in sample.answers} == {30}
    assert {count for word, count in counts.items() if word not in sample.answers} == {3}


def test_frequent_words_follow_the_law():
    assert compute_zeta(2.0) == pytest.approx(1.6449340668482264, abs=1e-12)
    counts = FrequentWords(name="fwe").counts(1000)
    assert counts[:4] == [607, 151, 67, 37]
    assert counts[4] == 24
    assert all(FrequentWords(name="fwe").counts(n)[3] > FrequentWords(name="fwe").counts(n)[4] for n in range(53, 999))


def test_words_of_one_kind_never_contain_each_other():
    chance = KeyedRandom("words")
    for draw, size in (("word", 6), ("key", 9), ("variable", 5), ("number", 7), ("uuid", 36)):
        made = chance.distinct(200, draw)
        assert {len(word) for word in made} == {size}
        assert len(set(made)) == 200


def test_pieces_put_together_are_the_text_again():
    for body in [*BODIES, "x" * 1000, "\n\n\n", "a"]:
        pieces = PIECE.findall(body)
        assert "".join(pieces) == body
        assert max(map(len, pieces)) <= 160


def test_sentences_are_put_between_units_at_their_depths():
    units = ["a. ", "b. ", "c.\n", "d. "]
    assert insert_sentences(units, ["X", "Y"], [1.0, 0.0]) == "Y a. b. c.\nd. X"
    assert insert_sentences(units, ["X"], [0.75]) == "a. b. c.\nX\nd."
    assert insert_sentences(units, ["2", "1"], [0.55, 0.45]) == "a. b. 1 2 c.\nd."


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NeedleTask(keys=0), r"^keys must be a finite number >= 1, got 0"),
        (lambda: NeedleTask(values=2, queries=2), r"one question asks for several values or for several keys; set one"),
        (lambda: CommonWords(name="cwe", often=2, rarely=2), r"often=2 must be more than rarely=2"),
        (lambda: FrequentWords(name="fwe", alpha=1.0), r"alpha=1\.0 must be above 1, or the frequencies have no sum"),
        (lambda: QuestionAnswering(sentences=-1), r"^sentences must be"),
        (lambda: ListedTexts(["", " \n"]), r"there is no local text to hide a needle in; use another data"),
    ],
)
def test_wrong_values_are_refused(make, message):
    with pytest.raises((ConfigError, DataError), match=message):
        make()


def test_making_samples_loads_no_torch():
    code = "import sys, aptlab.evals.tasks as t; from aptlab.data.tokenizers import ByteTokenizer; "
    code += "t.TaskSampler(t.PasskeyTask(), tokenizer=ByteTokenizer(), length=300).make(0); "
    code += "assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_tokenizer_that_loses_the_answer_is_refused():
    class Deaf(ByteTokenizer):
        def decode(self, ids):
            return super().decode(ids).translate(str.maketrans("", "", "0123456789"))

    with pytest.raises(AptlabError, match=r"passkey: the tokenizer reads the answer '\d{5}' back as ' ', so nothing"):
        TaskSampler(PasskeyTask(), tokenizer=Deaf(), length=400).make(0)
