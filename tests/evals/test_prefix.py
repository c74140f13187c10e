"""What an imported tokenizer puts in front of texts stands in front of documents, windows, questions and samples."""

from __future__ import annotations

import json

import pytest
import torch

from aptlab.data.store.writer import SideWriter
from aptlab.data.tokenizers import TokenizerFile
from aptlab.errors import ConfigError
from aptlab.evals.scoring.harness import HarnessModel, run_harness
from aptlab.evals.scoring.lengths import evaluate_windows
from aptlab.evals.scoring.sliding import score_segment
from aptlab.evals.tasks import PasskeyTask, TaskSampler
from aptlab.sample import ChatPrompt, SamplingRules, generate_texts
from aptlab.search.needles import make_samples
from aptlab.testing.tiny import make_random_tokens, make_tiny_decoder
from tests.evals.making import documents, marked
from tests.evals.test_lengths import side, windows

BOS = 1
TEMPLATE = "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %}"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """A tokenizer of words with `<s>`, whose template and files are those of a Llama."""
    folder = tmp_path_factory.mktemp("bos")
    tree = json.loads(marked(folder / "tokenizer.json").read_text())
    assert tree["added_tokens"][BOS]["content"] == "</s>"
    text = json.dumps(tree).replace("</s>", "<s>")  # one token is enough: it begins and ends texts
    piece = {"SpecialToken": {"id": "<s>", "type_id": 0}}
    post = {"type": "TemplateProcessing", "single": [piece, {"Sequence": {"id": "A", "type_id": 0}}]}
    post |= {"pair": post["single"], "special_tokens": {"<s>": {"id": "<s>", "ids": [BOS], "tokens": ["<s>"]}}}
    (folder / "tokenizer.json").write_text(json.dumps(json.loads(text) | {"post_processor": post}))
    config = {"bos_token": "<s>", "eos_token": "<s>", "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return TokenizerFile(str(folder / "tokenizer.json")).prepare(lambda: iter([]), key="", folder=folder)


def test_every_document_of_the_token_store_begins_with_it(tokenizer, tmp_path):
    writer = SideWriter(tmp_path, "train", tokenizer, "<u2")
    writer.add(["one", "two"], ["a river", ""])
    for stream in writer.streams.values():
        stream.close(sync=False)
    tokens = torch.frombuffer(bytearray((tmp_path / "train.tokens").read_bytes()), dtype=torch.int16).tolist()
    assert tokens == [BOS, *tokenizer.encode("a river"), BOS, BOS, BOS]
    assert writer.facts["tokens"] == len(tokens)


@pytest.mark.parametrize("length", [200, 333])
def test_a_prompt_of_a_task_begins_with_it_and_keeps_its_length(tokenizer, length):
    sampler = TaskSampler(PasskeyTask(), tokenizer=tokenizer, length=length, texts=documents())
    for index in range(3):
        sample = sampler.make(index, 0.0)
        assert len(sample.tokens) + sample.budget == length
        assert list(sample.tokens) == tokenizer.encode_text(tokenizer.decode(sample.tokens))
        assert sample.tokens[0] == BOS
        first, last = sample.question
        assert "pass key" in tokenizer.decode(sample.tokens[first:last])
        (begin, end), *_ = sample.meta["evidence"]
        assert "pass key is" in tokenizer.decode(sample.tokens[begin:end])


def test_every_window_begins_with_it_and_predicts_the_same_targets():
    net, given = make_tiny_decoder(), windows()
    rows = evaluate_windows(net, given, prefix=(7, 9)).rows
    for row in rows:
        expected, count = 0.0, 0
        for batch in given.batches(row["multiple"], tokens=1):
            tokens = torch.cat([torch.tensor([[7, 9]]), batch["tokens"][:, 2:]], 1)
            with torch.no_grad():
                chances = net(tokens).logits[0].double().log_softmax(-1)
            expected -= chances.gather(1, batch["targets"][0][:, None]).sum().item()
            count += tokens.shape[1]
        assert row["tokens"] == count
        assert row["loss"] == pytest.approx(expected / count, rel=1e-5)
    assert evaluate_windows(net, given, prefix=()).rows != rows


def test_every_sliding_window_begins_with_it():
    net, tokens = make_tiny_decoder(), make_random_tokens(1, 21)[0]
    found = score_segment(net, tokens, length=8, stride=4, prefix=(7,))
    expected = 0.0
    for start, first in ((0, 0), (4, 8), (8, 12), (12, 16)):
        inputs = torch.cat([torch.tensor([7]), tokens[start + 1 : start + 8]])
        with torch.no_grad():
            chances = net(inputs[None]).logits[0].double().log_softmax(-1)
        expected -= sum(chances[at - start, tokens[at + 1]].item() for at in range(first, start + 8))
    assert (found["tokens"], found["windows"]) == (20, 4)
    assert found["nats"] == pytest.approx(expected, rel=1e-5)


def test_every_sample_of_a_search_begins_with_it(tokenizer):
    for encoder in (tokenizer, None):
        for sample in make_samples(side(), encoder, length=300, count=3, prefix=(BOS,)):
            assert sample.tokens[0] == BOS
            assert len(sample.tokens) == 300


def write(net, tokenizer, prompt, **options):
    rules = SamplingRules(temperature=0)
    return next(iter(generate_texts(net, tokenizer, [prompt], rules=rules, max_new_tokens=6, seeds=[0], **options)))


def test_texts_and_chats_are_continued_behind_it(tokenizer):
    net = make_tiny_decoder(vocab=tokenizer.vocab_size, gain=4.0)
    text = write(net, tokenizer, "a river")
    chat = write(net, tokenizer, ChatPrompt([{"role": "user", "content": "a river"}]))
    assert chat.prompt == "<s>[user] a river"
    whole = tokenizer.decode([*tokenizer.encode_text("a river"), *text.tokens])
    assert str(text) == whole  # the space between prompt and text is kept
    assert write(net, tokenizer, "<s>[user] a river").tokens == chat.tokens
    name = tokenizer.name_tokens(text.tokens[2:3])
    assert not tokenizer.find_special_ids([name])
    assert tokenizer.find_special_ids(["<s>", "a"]) == {BOS}


@pytest.mark.slow
def test_the_harness_refuses_a_chat_without_a_template(tokenizer):
    pytest.importorskip("lm_eval")
    from aptlab.data.tokenizers import ByteTokenizer

    answers = HarnessModel(make_tiny_decoder(vocab=257), ByteTokenizer(), length=64)
    with pytest.raises(ConfigError, match="chat=true: this tokenizer has no chat template; use chat=false, or import"):
        run_harness(answers, ["any"], chat=True)
