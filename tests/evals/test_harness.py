"""The adapter for lm-evaluation-harness: on requests shaped as its own, and in its evaluator (slow)."""

from __future__ import annotations

import functools
import json
import logging
import math
import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml

from aptlab.data.tokenizers import BPE, ByteTokenizer, JsonTokenizer
from aptlab.errors import AptlabError, ConfigError
from aptlab.evals.harness import Harness
from aptlab.evals.scoring import harness
from aptlab.evals.scoring.harness import HarnessModel, make_lm, parse_generation_kwargs, run_harness
from aptlab.evals.scoring.requests import encode_pair
from aptlab.sample import SamplingRules, generate_tokens
from aptlab.testing.tiny import make_tiny_decoder

VOCAB, EOS = ByteTokenizer().vocab_size, ByteTokenizer().eos


@dataclass
class Instance:
    """What lm_eval hands over, as far as it is read."""

    args: tuple[Any, ...]


def requests(*args: tuple[Any, ...]) -> list[Instance]:
    return [Instance(one) for one in args]


def answers(**settings: Any) -> HarnessModel:
    return HarnessModel(make_tiny_decoder(vocab=VOCAB), ByteTokenizer(), **{"length": 64, **settings})


def chances(tokens: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return make_tiny_decoder(vocab=VOCAB)(torch.tensor([tokens])).logits[0].double().log_softmax(-1)


def test_a_loglikelihood_is_the_sum_over_the_continuation():
    pairs = requests(("The sky is", " blue"), ("", "alone"), ("One", " a much longer continuation"), ("x", "y"))
    for batch in (1, 3):
        found = answers(batch=batch).loglikelihood(pairs)
        for request, (value, greedy) in zip(pairs, found, strict=True):
            context, continuation = request.args
            before = list(context.encode()) or [EOS]
            tokens = [*before, *continuation.encode()]
            logprobs = chances(tokens[:-1])[len(before) - 1 :]
            expected = torch.tensor(tokens[len(before) :])
            assert value == pytest.approx(logprobs.gather(1, expected[:, None]).sum().item(), rel=1e-4)
            assert greedy is bool((logprobs.argmax(-1) == expected).all())


def test_the_greedy_flag_is_true_for_the_greedy_text():
    likeliest = {context: int(chances(list(context.encode()))[-1].argmax()) for context in ("a", "bc", "def", "ghij")}
    context, byte = next((context, byte) for context, byte in likeliest.items() if 32 < byte < 127)
    right, wrong = answers().loglikelihood(requests((context, chr(byte)), (context, "~" if byte != 126 else "!")))
    assert (right[1], wrong[1]) == (True, False)


def test_a_space_between_context_and_continuation_belongs_to_the_continuation():
    a, b = answers().loglikelihood(requests(("The sky is ", "blue"), ("The sky is", " blue")))
    assert a == b


@pytest.mark.parametrize("length", [4, 7, 64])
def test_a_rolling_loglikelihood_counts_every_token_once(length):
    text = "A text of some length"
    (found,) = answers(length=length).loglikelihood_rolling(requests((text,)))
    tokens = [EOS, *text.encode()]
    expected = 0.0
    for first in range(1, len(tokens), length):
        last = min(first + length, len(tokens))
        window = tokens[max(0, last - length - 1) : last]  # the last window reaches back as far as it has room
        logprobs = chances(window[:-1]).gather(1, torch.tensor(window[1:])[:, None])
        expected += logprobs[first - last :].sum().item()
    assert found == pytest.approx(expected, rel=1e-4)


def test_every_token_of_a_continuation_longer_than_the_context_costs():
    text = "abcdefghijklmnopqrstuvwxyz" * 2
    values = [answers(length=8).loglikelihood(requests(("The", text[:size])))[0][0] for size in range(6, 52, 5)]
    assert values == sorted(values, reverse=True)
    ((found, _),) = answers(length=8).loglikelihood(requests(("The sky is ", text)))
    tokens = [*b"The sky is ", *text.encode()]
    expected = 0.0
    for first in range(len(tokens) - len(text) - 1, len(tokens), 4):  # the space belongs to the continuation
        last = min(first + 4, len(tokens))
        window = tokens[last - 9 : last]
        logprobs = chances(window[:-1]).gather(1, torch.tensor(window[1:])[:, None])
        expected += logprobs[first - last :].sum().item()
    assert found == pytest.approx(expected, rel=1e-4)


def test_a_merge_across_the_boundary_gives_the_rest_of_the_whole_to_the_continuation():
    bpe = JsonTokenizer(BPE(vocab=300).train(iter(["the river runs through the riverbed " * 20])), "here")
    tokens, count = encode_pair(bpe, "the riv", "er runs")
    before, whole = bpe.encode("the riv"), bpe.encode("the river runs")
    assert whole[: len(before)] != before
    assert (tokens, count) == (before + whole[len(before) :], len(whole) - len(before))
    assert encode_pair(bpe, "the ", "river") == encode_pair(bpe, "the", " river")
    swallowed = bpe.encode("river")[: len(bpe.encode("rive"))]
    assert len(bpe.encode("river")) == len(swallowed)
    assert encode_pair(bpe, "rive", "r") == (bpe.encode("rive") + bpe.encode("r"), 1)


def test_sampled_texts_belong_to_their_requests():
    limits = {"max_gen_toks": 8, "do_sample": True, "temperature": 1.5}
    prompts = requests(("ab", limits), ("cd", limits), ("ab", limits), ("ef", limits | {"temperature": 0.9}))
    texts = [answers(batch=batch).generate_until(prompts) for batch in (1, 2, 8)]
    assert texts[0] == texts[1] == texts[2]
    assert answers().generate_until(prompts[:2][::-1]) == texts[0][:2][::-1]
    assert texts[0][0] != texts[0][2]


def test_no_room_for_a_prompt_is_refused():
    with pytest.raises(AptlabError, match=r"asks for 64 new tokens, and length=64 leaves none .* max_gen_toks=32"):
        answers().generate_until(requests(("ab", {"max_gen_toks": 64})))


def test_texts_are_greedy_by_default_and_end_before_a_stop_string():
    net = make_tiny_decoder(vocab=VOCAB)
    whole = generate_tokens(
        net, [list(b"ab")], rules=SamplingRules(temperature=0), max_new_tokens=20, eos=EOS, vocab=VOCAB
    )[0]
    text = ByteTokenizer().decode(whole)
    (found,) = answers().generate_until(requests(("ab", {"until": [], "max_gen_toks": 20})))
    assert found == text
    stop = text[3:5]
    (cut,) = answers().generate_until(requests(("ab", {"until": [stop], "max_gen_toks": 20, "do_sample": False})))
    assert cut == text[: text.index(stop)]


def test_texts_come_back_in_the_order_asked_for():
    prompts = requests(*(("a" * (n + 1), {"until": ["zz"], "max_gen_toks": 2 + n % 2}) for n in range(5)))
    together = answers(batch=2).generate_until(prompts)
    assert together == [answers().generate_until([one])[0] for one in prompts]


def test_a_long_text_loses_its_beginning_with_one_warning(caplog):
    one = answers(length=10)
    with caplog.at_level(logging.WARNING, "aptlab"):
        long, short = one.loglikelihood(requests(("x" * 50 + "abcde", "fgh"), ("xxxabcde", "fgh")))
        one.generate_until(requests(("x" * 50, {"max_gen_toks": 4})))
    assert long[0] == pytest.approx(short[0], rel=1e-5)
    messages = [record.getMessage() for record in caplog.records]
    assert messages == ["texts of more than 10 tokens lose their beginning (the first had 58); set length=…"]


def test_reading_in_pieces_changes_nothing(monkeypatch):
    pairs = requests(("The sky is", " blue and the"), ("Grass", " is green"))
    whole = answers().loglikelihood(pairs)
    monkeypatch.setattr(harness, "LOGITS", 10 * VOCAB)
    parts = answers().loglikelihood(pairs)
    assert [value for value, _ in parts] == pytest.approx([value for value, _ in whole], rel=1e-4)
    assert [greedy for _, greedy in parts] == [greedy for _, greedy in whole]


def test_settings_are_read_as_lm_eval_means_them():
    settings = parse_generation_kwargs({"until": "\n", "max_gen_toks": 7, "do_sample": False, "temperature": 0.7})
    assert (settings.until, settings.new_tokens, settings.rules) == (("\n",), 7, SamplingRules(temperature=0))
    assert parse_generation_kwargs({"do_sample": True, "temperature": 0.7, "top_p": 0.9}).rules == SamplingRules(
        temperature=0.7, top_p=0.9
    )
    assert parse_generation_kwargs({}).new_tokens == 256
    assert parse_generation_kwargs({"max_tokens": 3, "max_new_tokens": 9}).new_tokens == 9
    assert parse_generation_kwargs({"temperature": 0.7}).rules.temperature == 0.7
    assert parse_generation_kwargs({"do_sample": True, "temperature": 0.0}).rules.greedy
    defaults = {"top_k": 50, "repetition_penalty": 1.1}
    assert parse_generation_kwargs({"top_k": 3}, defaults).rules == SamplingRules(
        temperature=0, top_k=3, repetition_penalty=1.1
    )


def test_settings_that_mean_nothing_here_are_refused():
    with pytest.raises(AptlabError, match=r"the task asks for num_beams=4, which is not known here; change its"):
        parse_generation_kwargs({"until": [], "num_beams": 4})


def test_without_lm_eval_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(ConfigError, match=r"needs lm_eval, which is not installed; pip install 'aptlab\[harness\]'"):
        make_lm(answers())


def test_the_wrapped_object_is_an_lm_that_passes_requests_on(monkeypatch):
    class LM:
        pass

    for name in ("lm_eval", "lm_eval.api", "lm_eval.api.model"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules["lm_eval.api.model"].LM = LM  # type: ignore[attr-defined]
    model = answers()
    wrapped = make_lm(model)
    assert isinstance(wrapped, LM)
    pairs = requests(("The sky is", " blue"))
    assert wrapped.loglikelihood(pairs) == model.loglikelihood(pairs)
    assert wrapped.generate_until(requests(("ab", {"max_gen_toks": 3})), disable_tqdm=True) == model.generate_until(
        requests(("ab", {"max_gen_toks": 3}))
    )


def test_no_task_is_an_error():
    with pytest.raises(ConfigError, match=r"^tasks=\[\] asks for nothing; name tasks of lm_eval"):
        Harness(tasks=[])


@pytest.mark.slow
def test_its_evaluator_scores_all_three_kinds_of_requests_as_we_do_and_names_an_unknown_task(tmp_path, monkeypatch):
    """Tasks of local files; the answers are chosen by what the network says, so that every score is known."""
    import lm_eval.evaluator  # which takes the class from where it is replaced below
    import lm_eval.tasks

    once = functools.cache(lm_eval.tasks.TaskManager)  # it reads some thousand files
    monkeypatch.setattr(lm_eval.tasks, "TaskManager", once)
    model = answers()
    questions = [("The sky is", [" blue", " zqx"]), ("One and", [" two", " @@@@"])]
    scores = [[model.loglikelihood(requests((q, c)))[0][0] for c in choices] for q, choices in questions]
    likelier = [row.index(max(row)) for row in scores]
    (greedy,) = model.generate_until(requests(("ab", {"until": ["~~"], "max_gen_toks": 4})))
    texts = ["A text of some length", "and one that is longer than a window of the network has tokens, by some"]
    right = (likelier[0], 1 - likelier[1])
    docs = {
        "choose": [{"q": q, "c": c, "a": a} for (q, c), a in zip(questions, right, strict=True)],
        "write": [{"q": "ab", "a": answer} for answer in (greedy, "not this", "nor this")],
        "read": [{"text": text} for text in texts],
    }
    limits = {"until": ["~~"], "max_gen_toks": 4}
    kinds = {
        "choose": {"output_type": "multiple_choice", "doc_to_text": "{{q}}", "doc_to_choice": "{{c}}"},
        "write": {"output_type": "generate_until", "doc_to_text": "{{q}}", "generation_kwargs": limits},
        "read": {"output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{text}}"},
    }
    metrics = {"choose": "acc", "write": "exact_match", "read": "bits_per_byte"}
    for name, rows in docs.items():
        (tmp_path / f"{name}.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
        files = {"data_files": {"test": str(tmp_path / f"{name}.jsonl")}, "cache_dir": str(tmp_path / "cache")}
        task = {"task": f"own_{name}", "dataset_path": "json", "dataset_kwargs": files, "test_split": "test"}
        task |= {"doc_to_target": "{{a}}", "target_delimiter": "", "metric_list": [{"metric": metrics[name]}]}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(task | kinds[name]))
    found = run_harness(model, [f"own_{name}" for name in docs], include=str(tmp_path))["results"]
    assert found["own_choose"]["acc,none"] == 0.5
    assert found["own_write"]["exact_match,none"] == pytest.approx(1 / 3)
    nats = sum(model.loglikelihood_rolling(requests(*((text,) for text in texts))))
    expected = -nats / sum(len(text.encode()) for text in texts) / math.log(2)
    assert found["own_read"]["bits_per_byte,none"] == pytest.approx(expected, rel=1e-6)
    with pytest.raises(ConfigError, match=r"lm_eval knows no task no_such_task; see `lm_eval --tasks list`, or name"):
        run_harness(model, ["no_such_task"], include=str(tmp_path))
