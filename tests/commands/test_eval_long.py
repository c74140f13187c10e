"""`aptlab eval eval=…` on a real checkpoint of a tiny random model: passkey, needle, RULER, sliding windows."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from aptlab.commands import eval as command
from aptlab.commands.eval import read_eval_request
from aptlab.config import build, locate_error
from aptlab.errors import AptlabError, ConfigError
from aptlab.evals import LengthLoss, NeedleRetrieval, PasskeyRetrieval, Ruler, SlidingLoss
from aptlab.evals.runner import make_data
from aptlab.evals.scoring import retrieval
from aptlab.evals.scoring.retrieval import compute_wilson_interval
from aptlab.restore.load import load_network
from aptlab.restore.other_rule import replace_network_rope
from tests.commands.trained import CONTEXT, make_run, write_texts

RESULTS = {"eval.json", "samples.csv", "grid.csv", "heatmap.png", "journal.jsonl", ".lock"}
SMALL = ("eval.lengths=[256,320]", "eval.samples=2")


@pytest.fixture(scope="module")
def ckpt(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("eval")
    return make_run(folder / "outputs", texts=write_texts(folder / "texts.jsonl"))


@pytest.fixture
def run(ckpt, tmp_path):
    def call(*args: str, out: str = "out") -> dict:
        assert command.run([f"ckpt={ckpt}", "device=cpu", f"out={tmp_path / out}", *args]) == 0
        return json.loads((tmp_path / out / "eval.json").read_text())

    return call


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_whole_of_ruler_is_asked_and_every_file_is_written(run, tmp_path, capsys):
    found = run("eval=ruler", "eval.lengths=[512]", "eval.samples=1")
    out = capsys.readouterr().out
    assert len(found["grid"]) == len(found["forms"]) == 13
    assert {path.name for path in (tmp_path / "out").iterdir()} == RESULTS
    (total,) = found["lengths"]
    assert (total["length"], total["samples"]) == (512, 13)
    assert total["score"] == pytest.approx(sum(cell["score"] for cell in found["grid"]) / 13)
    assert (total["low"], total["high"]) == pytest.approx(compute_wilson_interval(total["score"], 13))
    samples = rows(tmp_path / "out" / "samples.csv")
    assert [row["task"] for row in samples] == [cell["task"] for cell in found["grid"]]
    nats = sum(float(row["loss"]) * int(row["tokens"]) for row in samples)
    assert total["loss"] == pytest.approx(nats / sum(int(row["tokens"]) for row in samples))
    assert f"ruler: percent of answers found, by length in tokens (trained at {CONTEXT})" in out
    assert "niah_multikey_3" in out
    assert found["eval"]["_target_"] == "aptlab.evals.ruler.Ruler"


def test_a_passkey_grid_has_a_cell_per_depth_and_length(run, tmp_path, capsys):
    found = run("eval=passkey", *SMALL, "eval.depths=[0,0.5,1]")
    cells = [(cell["depth"], cell["length"], cell["samples"]) for cell in found["grid"]]
    assert sorted(cells) == sorted((depth, length, 2) for depth in (0.0, 0.5, 1.0) for length in (256, 320))
    assert found["data"] is None
    table = rows(tmp_path / "out" / "grid.csv")
    assert [float(row["loss"]) for row in table] == [cell["loss"] for cell in found["grid"]]
    assert len(rows(tmp_path / "out" / "samples.csv")) == 12
    assert "depth" in capsys.readouterr().out


def test_lengths_default_to_multiples_of_the_trained_context(run):
    found = run("eval=passkey", "multiples=[16,20]", "eval.samples=1", "eval.depths=[0.5]")
    assert [row["length"] for row in found["lengths"]] == [16 * CONTEXT, 20 * CONTEXT]


def test_a_needle_lies_in_the_validation_text_and_a_rope_rule_may_be_swapped(run, ckpt, capsys):
    found = run(
        "eval=needle", "rope=yarn", "rope.factor=8", "eval.lengths=[320]", "eval.samples=1", "eval.depths=[0.5]"
    )
    assert "without training" in capsys.readouterr().out
    assert found["rope"]["factor"] == 8
    data = make_data(load_network(ckpt), None)
    assert found["data"] == {"fingerprint": data.fingerprint}


@pytest.mark.slow
def test_the_same_request_goes_on_where_it_was_broken_off(run, tmp_path, monkeypatch, capsys):
    args = ("eval=ruler", "eval.tasks=[niah_single_1,vt]", "eval.lengths=[300,320]", "eval.samples=2")
    whole = run(*args, out="whole")

    class Stop(Exception):
        pass

    answered, answer = 0, retrieval.answer_samples

    def broken(*args, **settings):
        nonlocal answered
        for outcome in answer(*args, **settings):
            if answered == 5:
                raise Stop
            answered += 1
            yield outcome

    monkeypatch.setattr(retrieval, "answer_samples", broken)
    with pytest.raises(Stop):
        run(*args)
    monkeypatch.setattr(retrieval, "answer_samples", answer)
    journal = tmp_path / "out" / "journal.jsonl"
    assert len(journal.read_bytes().splitlines()) == 6
    journal.write_bytes(journal.read_bytes() + b'{"task": "vt", "len')
    capsys.readouterr()
    resumed = run(*args)
    assert "going on after 5 of 8 samples" in capsys.readouterr().out
    for before, after in zip(whole["grid"], resumed["grid"], strict=True):
        assert after.pop("loss") == pytest.approx(before.pop("loss"), rel=1e-5)  # rows were read beside others
        assert after == before
    texts = [
        [(row["task"], row["length"], row["index"], row["answers"], row["generated"]) for row in rows(folder)]
        for folder in (tmp_path / "out" / "samples.csv", tmp_path / "whole" / "samples.csv")
    ]
    assert texts[0] == texts[1]
    lines = len(journal.read_bytes().splitlines())
    monkeypatch.setattr(retrieval, "answer_samples", broken)  # nothing is left to answer
    assert run(*args)["lengths"] == resumed["lengths"]
    assert len(journal.read_bytes().splitlines()) == lines == 9


def test_a_journal_of_an_older_version_goes_on(run, tmp_path, monkeypatch):
    """Earlier versions named the same classes by other modules, and one of them by another name."""
    args = ("eval=passkey", *SMALL, "eval.depths=[0.5]")
    whole = run(*args)
    journal = tmp_path / "out" / "journal.jsonl"
    first, *rest = journal.read_text().splitlines(keepends=True)
    request = json.loads(first)["request"]
    request["eval"]["_target_"] = "aptlab.evals.rules.Passkey"
    request["rope"]["_target_"] = "aptlab.nn.rope.Standard"
    journal.write_text(json.dumps({"request": request}) + "\n" + "".join(rest))

    def unused(*_, **__):
        raise AssertionError("everything was answered before")

    monkeypatch.setattr(retrieval, "answer_samples", unused)
    assert run(*args)["grid"] == whole["grid"]
    assert journal.read_text().splitlines()[1:] == [line.rstrip("\n") for line in rest]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("eval.seed=1", r"eval\.seed: 0 -> 1"),
        ("eval.samples=3", r"eval\.samples: 2 -> 3"),
        ("rope=ntk", r"rope\._target_: .*Standard\" -> .*NTK"),
        ("eval.lengths=[256]", r"eval\.lengths: \[256, 320\] -> \[256\]"),
    ],
)
def test_a_changed_request_in_the_same_folder_is_an_error_that_names_what_differs(run, change, message):
    run("eval=passkey", *SMALL, "eval.depths=[0.5]")
    with pytest.raises(AptlabError, match=message):
        run("eval=passkey", *SMALL, "eval.depths=[0.5]", change)


def test_an_interrupt_says_how_to_go_on(run, monkeypatch, tmp_path, capsys):
    def broken(*_, **__):
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(retrieval, "answer_samples", broken)
    with pytest.raises(KeyboardInterrupt):
        run("eval=passkey", *SMALL)
    assert f"to go on, give the same command with out={tmp_path / 'out'}" in capsys.readouterr().err


def test_a_sliding_window_counts_every_token_once_and_shows_the_chunk_mean(run, tmp_path, capsys):
    found = run("eval=sliding", "eval.lengths=[16,64]", "eval.stride=8", "tokens=512")
    out = capsys.readouterr().out
    assert [row["length"] for row in found["lengths"]] == [16, 64]
    assert {row["tokens"] for row in found["lengths"]} == {512}
    assert [row["windows"] for row in found["lengths"]] == [8 * 7, 8]
    assert "chunk ppl" in out
    assert "weigh every token alike" in out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"eval.json", "figure.png", "journal.jsonl", ".lock"}
    assert run("eval=sliding", "eval.lengths=[16,64]", "eval.stride=8", "tokens=512")["lengths"] == found["lengths"]


def test_a_window_of_its_own_length_slides_nowhere_and_has_the_loss_of_lengths(run):
    plain = run("multiples=[1,4]", "tokens=512", out="plain")
    slid = run("eval=sliding", "multiples=[4]", "tokens=512", out="slid")
    assert slid["lengths"][0]["loss"] == pytest.approx(plain["lengths"][1]["loss"], rel=1e-6)


@pytest.mark.parametrize(
    ("option", "kind"),
    [
        ("lengths", LengthLoss),
        ("sliding", SlidingLoss),
        ("passkey", PasskeyRetrieval),
        ("needle", NeedleRetrieval),
        ("ruler", Ruler),
    ],
)
def test_every_option_is_a_rule_whose_values_are_its_defaults(option, kind):
    request = read_eval_request([f"eval={option}"])
    stored = {"context": CONTEXT, "seed": 0, "tokenizer": None}
    made = build(request.filled(stored)["eval"])
    assert type(made) is kind
    assert {name: plain(value) for name, value in vars(made).items()} == {
        name: plain(value) for name, value in vars(kind()).items()
    }


def plain(value):
    return list(value) if isinstance(value, list | tuple) else value


def test_a_harness_without_tasks_or_without_lm_eval_says_what_to_do(run, monkeypatch):
    with pytest.raises(AptlabError, match=r"eval\.tasks: a value is needed; set eval\.tasks="):
        read_eval_request(["eval=harness"])
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(ConfigError, match=r"pip install 'aptlab\[harness\]'"):
        run("eval=harness", "eval.tasks=[hellaswag]")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["eval=rular"], r"eval=rular: no such option; did you mean ruler"),
        (["eval=null"], r"eval=null measures nothing; leave it out for eval=lengths, or choose one"),
        (["eval=ruler", "eval.tasks=[vtt]"], r"eval\.tasks: there is no task vtt; did you mean vt\?"),
        (["eval=ruler", "eval.tasks=[]"], r"eval\.tasks=\[\] asks for nothing; null takes all of niah_single_1"),
        (["eval=passkey", "eval.lengths=[]"], r"eval\.lengths=\[\] measures nothing; choose lengths such as"),
        (["eval=sliding", "eval.lengths=[]"], r"eval\.lengths=\[\] measures nothing; choose lengths such as"),
        (["eval=passkey", "eval.depths=[]"], r"eval\.depths=\[\] measures nothing; choose depths such as"),
        (["eval=passkey", "eval.depths=[1.5]"], r"eval\.depths: must be in \[0, 1\], got 1\.5"),
        (["eval=ruler", "eval.samples=0"], r"eval\.samples: must be a finite number >= 1, got 0"),
        (["eval=needle", "eval.haystack=essay"], r"eval\.haystack: no such value 'essay'; allowed: noise, text"),
        (["eval.lengths=[512]"], r"eval\.lengths: .* has no such parameter; it takes multiples, tokens; eval options"),
    ],
)
def test_what_is_wrong_is_said_before_torch_is_needed(args, message):
    with pytest.raises(AptlabError, match=message):
        read_eval_request(args)


def test_a_length_that_is_too_short_is_an_error(run):
    message = r"lengths: passkey needs at least \d+ tokens with this tokenizer, got 16"
    with pytest.raises(ConfigError, match=f"^{message}") as caught:
        run("eval=passkey")
    assert re.match(rf"eval\.{message}", str(locate_error(caught.value)))


@pytest.mark.parametrize("option", [("eval=passkey",), ("eval=needle", "eval.haystack=noise")])
def test_lengths_that_are_too_short_are_left_out_with_one_line(run, capsys, option):
    lengths, small = "eval.lengths=[16,32,256]", ("eval.samples=1", "eval.depths=[0.5]")
    found = run(*option, lengths, *small)
    assert [row["length"] for row in found["lengths"]] == [256]
    name = option[0].removeprefix("eval=")
    lines = [line for line in capsys.readouterr().err.splitlines() if "left out" in line]
    assert len(lines) == 1
    needs = rf"{name} needs at least \d+ tokens with this tokenizer, got 32"
    assert re.fullmatch(rf"warning: left out, too short: 16, 32 tokens \({needs}\)", lines[0])


@pytest.fixture(scope="module")
def placed(tmp_path_factory) -> Path:
    """A model with learned positions, which end."""
    folder = tmp_path_factory.mktemp("placed")
    return make_run(folder / "outputs", texts=write_texts(folder / "texts.jsonl"), extra=("embed=learned",))


@pytest.mark.parametrize("option", ["passkey", "sliding"])
def test_lengths_beyond_the_positions_of_the_model_are_an_error(run, placed, option):
    longest = load_network(placed).net.max_positions
    message = f"lengths: 9,999 tokens are more than the {longest:,} positions that"
    with pytest.raises(ConfigError, match=f"^{message}") as caught:
        run(f"ckpt={placed}", f"eval={option}", "eval.lengths=[9999]")
    assert str(locate_error(caught.value)).startswith(f"eval.{message}")


def test_multiples_beyond_the_positions_are_left_out_by_other_evals_too(run, placed, capsys):
    longest = load_network(placed).net.max_positions
    found = run(f"ckpt={placed}", "eval=sliding", f"eval.multiples=[1,{longest // CONTEXT + 1}]", "eval.tokens=128")
    assert [row["length"] for row in found["lengths"]] == [CONTEXT]
    assert f"left out: {(longest // CONTEXT + 1) * CONTEXT:,} tokens, for the model has {longest:,} positions" in (
        capsys.readouterr().err
    )


def test_multiples_beyond_the_positions_of_the_model_are_left_out_with_a_reason(run, placed, capsys):
    longest = load_network(placed).net.max_positions
    found = run(f"ckpt={placed}", "tokens=512", f"multiples=[1,{longest // CONTEXT + 1}]")
    assert [row["multiple"] for row in found["lengths"]] == [1]
    assert f"the model has positions for {longest} tokens only" in capsys.readouterr().err


def test_checking_a_long_request_loads_no_torch():
    code = "import sys; from aptlab.commands.eval import read_eval_request; "
    code += "[read_eval_request([f'eval={name}']) for name in ('ruler', 'passkey', 'needle', 'sliding')]; "
    code += "assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_learned_rule_may_be_swapped_for_one_without_weights_and_back(ckpt, tmp_path):
    texts = write_texts(tmp_path / "texts.jsonl")
    learned = load_network(make_run(tmp_path / "outputs", texts=texts, extra=("rope=learnable",)))
    names = [name for name in learned.net.state_dict() if name.startswith("rotaries.")]
    assert names
    plain = replace_network_rope(learned, read_eval_request(["rope=yarn"]).filled(learned.config)["rope"])
    assert not [name for name in plain.state_dict() if name.startswith("rotaries.")]
    assert plain.embed.weight.equal(learned.net.embed.weight)
    same = replace_network_rope(learned, read_eval_request(["rope=learnable"]).filled(learned.config)["rope"])
    assert all(same.state_dict()[name].equal(learned.net.state_dict()[name]) for name in names)
    assert set(
        replace_network_rope(
            load_network(ckpt), read_eval_request(["rope=learnable"]).filled(learned.config)["rope"]
        ).state_dict()
    ) > set(plain.state_dict())
