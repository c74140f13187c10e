"""Sequence to sequence: its numbers, a run from training to targets, resumed at any step, and what it learns."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.continual.small import CLOCKS, resume_copy
from tests.models.making_pairs import make_pair_net

import aptlab
from aptlab.checkpoint import load_checkpoint
from aptlab.cli import main
from aptlab.config import build, check, compose
from aptlab.errors import ConfigError
from aptlab.evals.scoring.seq2seq import measure_unigram_entropy
from aptlab.objectives import IGNORE, NextToken
from aptlab.optim import AdamW, Cosine
from aptlab.runs.record import read_record
from aptlab.tasks import LanguageTask, Seq2SeqTask
from aptlab.testing.callbacks import find_difference
from aptlab.testing.tiny import make_tiny_decoder

SMALL = ["size=debug", "trainer=debug", "trainer.max_steps=4", "logger=csv", "device=cpu", "context=14", "data.batch=4"]
SMALL += ["data.val_batches=2", "evals.seq2seq.rows=6", "callbacks.checkpoints.every=1", "callbacks.checkpoints.keep=9"]
PAIRS = ["model=apt", "data=pairs", "source=reverse", "source.count=240"]


def make_task(net: Any = None, kind: type = Seq2SeqTask) -> Any:
    return kind(net or make_pair_net(), optim=AdamW(), schedule=Cosine(), objective=NextToken())


def test_validation_counts_tokens_and_rows_as_loops_do():
    task = make_task()
    torch.manual_seed(0)
    targets = torch.randint(3, (5, 4))
    targets[1, 2:] = targets[3, 1:] = targets[4] = IGNORE
    logits = torch.randn(5, 4, 23)
    logits[3, 0, targets[3, 0]] = 50.0
    batch = {"targets": targets}
    sums = task.sum_validation(type("Out", (), {"logits": logits, "aux": {}, "traces": {}}), batch).tolist()
    best, nats, counts = logits.argmax(-1), 0.0, [0, 0, 0, 0]
    for row in range(5):
        kept = [place for place in range(4) if targets[row, place] != IGNORE]
        right = [place for place in kept if best[row, place] == targets[row, place]]
        nats -= sum(logits[row, place].log_softmax(-1)[targets[row, place]].item() for place in kept)
        counts = [a + b for a, b in zip(counts, (len(kept), len(right), bool(kept), bool(kept) and kept == right))]
    assert sums == pytest.approx([nats, *counts], rel=1e-5)
    assert counts[3] >= 1
    numbers = task.describe_sums(sums)
    assert numbers["accuracy"] == counts[1] / counts[0]
    assert numbers["exact"] == counts[3] / 4
    assert math.isnan(task.describe_sums([0.0] * 5)["exact"])


def test_rows_and_tasks_that_do_not_go_together_are_refused():
    rows, text = type("D", (), {"target_context": 5})(), type("D", (), {"target_context": 0})()
    with pytest.raises(ConfigError, match="task=seq2seq needs rows of a source and a target, and D with these rows"):
        make_task().bind_data(text)
    with pytest.raises(ConfigError, match="task=language predicts the next token of a text, and these rows are a sour"):
        make_task(make_tiny_decoder(), LanguageTask).bind_data(rows)
    for words, message in (
        (["model=apt", "task=language"], r"EncoderDecoder is no whole aptlab\.models\.decoder\.Decoder"),
        (["task=seq2seq", "model=decoder"], r"Decoder is no whole aptlab\.models\.encoder_decoder\.EncoderDecoder"),
        (["model=apt", "data=pairs", "source=stdlib"], r"Stdlib is no whole aptlab\.data\.sources\.pairs\.PairSource"),
    ):
        with pytest.raises(ConfigError, match=message):
            check(compose("train", words))


def test_the_model_alone_chooses_its_task_and_every_block_gets_a_cross_site():
    for block in ("pre_norm", "sandwich", "reordered", "parallel", "parallel_shared"):
        config = compose("train", ["model=apt", f"block={block}", "size=debug", "smooth=left_spin"])
        check(config)
        assert (config.choices["task"], config.choices["data"]) == ("seq2seq", "span_corruption")
        net = build({**config.resolved()["model"], "vocab": 9})
        sites = net.decoder.blocks[0]
        assert sites.sites == ("attention", "cross", "ffn")
        assert sites.parallel == net.encoder.blocks[0].parallel == block.startswith("parallel")
        assert type(sites.cross_norm_after) is type(sites.attention_norm_after)
        assert torch.isfinite(net(torch.tensor([[1, 2]]), decoder_tokens=torch.tensor([[3]])).logits).all()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run on pairs, trained to its end in this process."""
    folder = tmp_path_factory.mktemp("pairs") / "run"
    aptlab.train([*SMALL, *PAIRS, f"run_dir={folder}"])
    return folder


def read_state(folder: Path, step: int = 4) -> dict[str, Any]:
    return load_checkpoint(folder / "checkpoints" / f"step-{step:08d}.ckpt")


def test_a_run_measures_what_it_writes_and_goes_on_from_any_step(run):
    record = read_record(next(run.glob("evals/*/seq2seq/eval.json")), dict)[0]
    (row,) = record["pairs"]
    assert (row["language"], row["rows"]) == ("all", 6)
    assert 0 <= row["written"] <= 1
    assert len(record["examples"]) == 5
    assert all(example["target"] == example["source"][::-1] for example in record["examples"])
    copy = resume_copy(run, 2, "copy")
    states = read_state(run), read_state(copy)
    for key in ("state_dict", "optimizer_states", "callbacks", "PairData"):
        assert find_difference(states[0][key], states[1][key], CLOCKS) is None, key
    assert states[0]["PairData"]["micro_batches"] == 4


def test_targets_are_written_from_the_command_line_and_from_python(run, capsys):
    assert main(["generate", f"ckpt={run}", "prompt=中文", "max_new_tokens=6", "temperature=0", "out=one.jsonl"]) == 0
    (line,) = map(json.loads, Path("one.jsonl").read_text().splitlines())
    assert line["prompt"] == "中文"
    (text,) = aptlab.generate(run, "中文", max_new_tokens=6, temperature=0)
    assert (text.tokens, text.text) == (line["tokens"], line["text"])
    (best,) = aptlab.generate(run, "中文", max_new_tokens=6, beams=3, length_penalty=0.5)
    assert best.reason in ("eos", "length")
    capsys.readouterr()
    for words, message in (
        (["prompt=a", "beams=2", "samples=2"], "beams=2 finds the same target for the same source"),
        (["prompt=a", "width=0.5"], "width and draft are of a nested decoder"),
        (["prompt="], "there is no source to read"),
    ):
        assert main(["generate", f"ckpt={run}", *words]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["export"], "aptlab export takes a model that continues texts"),
        (["export", "format=onnx"], "aptlab export takes a model that continues texts"),
        (["search", "target=128"], "aptlab search takes a model that continues texts"),
        (["eval"], "eval=lengths measures a model that continues texts, and this network is none; use eval=seq2seq"),
    ],
    ids=["hf", "onnx", "search", "lengths"],
)
def test_what_needs_a_decoder_refuses_the_checkpoint(run, words, message, capsys):
    assert main([words[0], f"ckpt={run}", *words[1:]]) == 2
    assert message in capsys.readouterr().err


def test_the_eval_of_pairs_refuses_a_decoder_and_runs_on_a_checkpoint(run, capsys):
    assert main(["eval", f"ckpt={run}", "eval=seq2seq", "eval.rows=3", "eval.beams=2", "out=there"]) == 0
    assert json.loads(Path("there/eval.json").read_text())["pairs"][0]["rows"] == 3
    words = ["size=debug", "device=cpu", "task=language", "+eval@evals.seq2seq=seq2seq", "evals.lengths=null"]
    assert main(["train", *words, "evals.sample=null", "trainer=debug", "source.parts=[prose]"]) == 2
    assert (
        "evals.seq2seq: eval=seq2seq measures an encoder-decoder, and this network is none" in capsys.readouterr().err
    )


def test_the_unigram_entropy_is_that_of_the_frequencies():
    assert measure_unigram_entropy([[1, 1], [2, 3]]) == pytest.approx(1.5 * math.log(2))
    assert measure_unigram_entropy([[1, 1], [1]]) == 0


def learn(words: list[str], steps: int) -> dict[str, Any]:
    """The first row of eval=seq2seq after so many steps in this process."""
    folder = Path("learned")
    numbers = [f"trainer.max_steps={steps}", "validate.every=null"]
    aptlab.train(["model=apt", "size=debug", "logger=csv", "device=cpu", *words, *numbers, f"run_dir={folder}"])
    return read_record(next(folder.glob("evals/*/seq2seq/eval.json")), dict)[0]["pairs"][0]


@pytest.mark.slow
@pytest.mark.parametrize("order", ["copy", "reverse"])
def test_it_learns_to_copy_and_to_reverse(order):
    letters = ["data=pairs", f"source={order}", "source.alphabet=abcdef", "source.longest=6", "source.count=4000"]
    row = learn([*letters, "context=8", "data.batch=32"], 450)
    assert row["accuracy"] > 0.99
    assert row["written"] > 0.9


@pytest.mark.slow
def test_it_learns_spans_better_than_their_frequencies():
    row = learn(["context=32", "data.batch=16", "source.parts=[prose]"], 300)
    assert row["loss"] < row["unigram"]
