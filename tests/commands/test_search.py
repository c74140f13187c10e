"""`aptlab search`, in this process, on a real checkpoint of a tiny random model, and killed in one of its own."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from aptlab.commands import eval as evaluation
from aptlab.commands import search as command
from aptlab.commands.search import read_search_request
from aptlab.config import build, compose
from aptlab.errors import AptlabError
from aptlab.evals.runner import make_data
from aptlab.nn.positions.rope import LongRoPE, LongRoPE2
from aptlab.restore.load import load_network
from aptlab.search.meter import CandidateScorer
from aptlab.search.needles import make_samples
from aptlab.search.objectives import NeedleObjective
from aptlab.search.progress import format_factors
from tests.commands.trained import CONTEXT, make_run, write_texts

TARGET = 256
TEXT = ("rope=longrope2", "search.objective=ppl")  # by plain text, of which a random model has a loss as well
SIZES = ("population=6", "parents=3", "iterations=2", "mutations=3", "crossovers=2", "samples=3")
SMALL = [f"target={TARGET}", "device=cpu", *(f"search.{size}" for size in SIZES)]


@pytest.fixture(scope="module")
def ckpt(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("search")
    return make_run(folder / "outputs", texts=write_texts(folder / "texts.jsonl", documents=60, words=200))


@pytest.fixture(scope="module")
def run(ckpt):
    def call(*args: str, out: str = "out", workers: int = 1) -> dict:
        assert command.run([f"ckpt={ckpt}", f"out={out}", f"workers={workers}", *SMALL, *args]) == 0
        return json.loads(Path(out, "search.json").read_text())

    return call


@pytest.fixture(scope="module")
def searched(run, tmp_path_factory) -> Path:
    """Where the search by plain text was run: its folder `out`, and the option that it wrote."""
    folder = tmp_path_factory.mktemp("searched")
    with contextlib.chdir(folder):
        run(*TEXT)
    return folder


@pytest.fixture
def first(searched, tmp_path) -> dict:
    """What that search found; all that it left is here."""
    shutil.copytree(searched, tmp_path, dirs_exist_ok=True)
    return json.loads(Path("out", "search.json").read_text())


def measurements(out: str | Path = "out") -> list[dict]:
    lines = map(json.loads, Path(out, "journal.jsonl").read_text().splitlines())
    return [line for line in lines if "factors" in line]


@pytest.fixture
def knowing(monkeypatch):
    """A random model knows no hidden number: here guessing costs so much that it passes for one that does."""
    monkeypatch.setattr("aptlab.search.verdict.compute_guessing_loss", lambda samples: 100.0)


def test_a_search_whose_scores_would_rank_nothing_stops_before_it_begins(run):
    with pytest.raises(
        AptlabError,
        match=r"^no basis for a search: hidden numbers cost \d\.\d+ nats per token at best, and 2\.288 by guessing: "
        r"this model finds none, so no .*; train it further, take a smaller target=…, or use search\.objective=ppl$",
    ):
        run("rope=longrope2")
    assert measurements() == []
    assert not Path("conf").exists()
    assert not Path("out/search.json").exists()


def test_a_mixed_search_without_a_basis_warns_and_writes_no_option(run, capsys):
    found = run("rope=longrope2", "search.objective=mixed")
    said, warned = capsys.readouterr()
    assert found["scores"]["yarn"] == pytest.approx(1.0)
    assert re.search(r"^warning: hidden numbers cost .* 2\.288 by guessing.*half of every score is noise", warned, re.M)
    assert (found["verdict"], "use it" in said, "\noption  " in said) == ("no basis", False, False)
    assert "no basis: no rule finds hidden numbers better than by guessing (2.288 nats per token)" in said
    assert not Path("conf").exists()


@pytest.mark.slow
def test_the_option_can_be_used_at_once(run, ckpt, capsys, knowing):
    found = run("rope=longrope2")
    said = capsys.readouterr().out
    rule = build(compose("train", ["rope=longrope2_256"]).resolved()["rope"])
    assert rule == LongRoPE2(
        factor=TARGET / CONTEXT,
        original_len=CONTEXT,
        target_len=TARGET,
        long=tuple(found["found"]["factors"]),
        critical_dim=found["found"]["first"],
    )
    assert "LongRoPE2, 16 -> 256 tokens (16x), needle_ppl, halving" in said
    words = [f"ckpt={ckpt}", "device=cpu", "rope=longrope2_256", "tokens=512", "multiples=[1,2]", "out=measured"]
    assert evaluation.run(words) == 0


@pytest.mark.slow
def test_the_score_is_that_of_the_rule_in_the_option(run, ckpt, knowing):
    found = run("rope=longrope", "search.objective=needle_ppl", "search.strategy=published")
    loaded = load_network(ckpt)
    data = make_data(loaded, None)
    options = {"length": TARGET, "count": 3, "after": CONTEXT}
    samples = make_samples(data.store.val, data.tokenizer, **options)
    rule = build(compose("train", ["rope=longrope_256"]).resolved()["rope"])
    assert isinstance(rule, LongRoPE)
    meter = CandidateScorer(loaded.net, {TARGET: samples}, objective=NeedleObjective(), rule_of=lambda factors: rule)
    expected = [answer for answer, _ in meter.losses(rule, TARGET, range(3))]
    assert found["found"]["score"] == pytest.approx(sum(expected) / 3, rel=1e-6)
    assert found["scores"]["search"] == pytest.approx(found["found"]["score"], rel=1e-12)
    assert found["found"]["tokens"] == sum(line["length"] * len(line["samples"]) for line in measurements())


def test_the_table_holds_the_rules_that_need_no_search(run, capsys):
    found = run("rope=longrope")
    assert list(found["scores"]) == ["linear", "ntk", "yarn", "longrope guess", "search"]
    assert found["objective"] == "ppl"
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if line.startswith(("linear ", "ntk ", "yarn ", "search "))][-4:] == [
        "linear",
        "ntk",
        "yarn",
        "search",
    ]
    assert {path.name for path in Path("out").iterdir()} >= {"journal.jsonl", "search.json", "figure.png"}
    assert found["found"]["score"] <= min(found["scores"].values()) + 1e-3


@pytest.mark.parametrize("rope", ["longrope", "longrope2"])
def test_an_option_is_recommended_where_it_beats_every_rule_without_a_search(run, ckpt, capsys, rope):
    found = run(f"rope={rope}", "search.objective=ppl")
    said, scores = capsys.readouterr().out, dict(found["scores"])
    better = scores.pop("search") < min(scores.values())
    assert found["verdict"] == ("better" if better else "not better")
    assert (f"use it   aptlab eval ckpt={ckpt} rope={rope}_256" in said) == better
    assert found["guessing"] is None
    lines = Path(f"conf/rope/{rope}_256.yaml").read_text().splitlines()
    papers = {"longrope": "LongRoPE (Ding et al. 2024, arXiv:2402.13753)"}
    papers["longrope2"] = "LongRoPE2 (Shang et al. 2025, arXiv:2502.20082)"
    assert lines[0] == f"# {papers[rope]} for 256 tokens, searched by ppl: {found['verdict']}."
    assert f"yarn {scores['yarn']:.4f} (Peng et al. 2023, arXiv:2309.00071)" in lines[1]


def test_a_smaller_population_alone_is_a_whole_request():
    assert read_search_request(["target=64", "search.population=8"]).search.brood.parents == 4


@pytest.mark.slow
def test_the_same_command_measures_nothing_again(run, searched, first, monkeypatch):
    monkeypatch.chdir(searched)  # an option belongs to the folder that it was found in
    lines = measurements()
    again = run(*TEXT)
    assert measurements() == lines
    assert again["found"] == first["found"]


@pytest.mark.slow
def test_processes_change_nothing(run, first):
    two = run(*TEXT, "name=other", out="two", workers=2)
    assert two["found"] == first["found"]
    assert two["losses"] == first["losses"]


def test_a_fixed_critical_pair_is_searched_from(run):
    assert run(*TEXT, "rope.critical_dim=3")["found"]["first"] == 3


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_search_killed_with_kill_9_goes_on_to_the_same_result(run, ckpt, searched, workers):
    whole = json.loads((searched / "out" / "search.json").read_text())
    words = [f"ckpt={ckpt}", *TEXT, "out=out", f"workers={workers}", *SMALL]
    process = subprocess.Popen([sys.executable, "-m", "aptlab", "search", *words], stdout=subprocess.DEVNULL)
    journal, end = Path("out/journal.jsonl"), time.monotonic() + 120
    while not journal.exists() or len(measurements()) < 8:
        assert time.monotonic() < end
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = measurements()
    again = run(*TEXT, workers=workers)
    assert again["found"] == whole["found"]
    assert measurements()[: len(done)] == done
    assert len(measurements()) == len(measurements(searched / "out"))


def test_another_request_in_the_same_folder_is_refused(run, searched, monkeypatch):
    monkeypatch.chdir(searched)
    with pytest.raises(
        AptlabError, match=r"another request; what differs:\n  search\.population: 6 -> 7\n.*another out="
    ):
        run(*TEXT, "search.population=7")


@pytest.mark.usefixtures("first")
def test_a_name_that_is_taken_is_refused(run):
    with pytest.raises(AptlabError, match=r"name=longrope2_256: conf/rope/longrope2_256\.yaml is there already; choos"):
        run(*TEXT, "seed=1", out="other")
    with pytest.raises(AptlabError, match=r"name=yarn: rope=yarn is there already \(.*yarn\.yaml\); choose another na"):
        run(*TEXT, "name=yarn")


@pytest.mark.usefixtures("first")
def test_factors_found_for_another_model_are_refused(tmp_path):
    texts = write_texts(tmp_path / "texts.jsonl")
    narrow = make_run(tmp_path / "outputs", texts=texts, extra=("size.heads=4", "size.head_dim=8"))
    with pytest.raises(AptlabError, match=r"rope\.long has 8 divisors, and a head of 8 dims needs 4"):
        evaluation.run([f"ckpt={narrow}", "device=cpu", "rope=longrope2_256", "tokens=256"])


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([f"target={CONTEXT}"], rf"target={CONTEXT} must be longer than the trained context of 16; use target=32 or"),
        (["rope=yarn"], r"rope=YaRN has no factors to search; use rope=longrope or rope=longrope2"),
        (["target=100000"], r"the validation text has .* tokens, and a sample takes 100,001; use more text"),
        (["target=100"], r"a needle with its question takes 126 tokens, more than a sample of 100"),
        (["search.step=99"], r"search\.step=99.* leaves 1 factors between 16 and 32 for 7 pairs; largest: 2"),
        (["rope.critical_dim=8"], r"critical_dim=8"),
        (["rope.temperature_on=keys"], r"temperature_on"),
    ],
)
def test_what_the_checkpoint_does_not_allow_is_said_before_measuring(run, args, message):
    with pytest.raises(AptlabError, match=message):
        run("rope=longrope2", *args)
    assert not Path("out/journal.jsonl").exists()
    assert not Path("conf").exists()


def test_a_model_without_rotary_positions_has_nothing_to_search(tmp_path):
    texts = write_texts(tmp_path / "texts.jsonl", documents=60, words=200)
    bare = make_run(tmp_path / "outputs", texts=texts, extra=("rope=none",))
    with pytest.raises(AptlabError, match=r"trained with NoRope, whose frequencies have no base to rescale; use a"):
        command.run([f"ckpt={bare}", *SMALL])


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], r"target: a length is needed, in tokens, as in target=2048"),
        (["target=0"], r"target: must be a finite number >= 1, got 0"),
        (["target=2k"], r"target: expects int, got '2k'"),
        (["target=64", "search.objective=needle"], r"search\.objective: .*'needle'; did you mean needle_ppl"),
        (["target=64", "search.strategy=halvign"], r"search\.strategy: .*'halvign'; did you mean halving"),
        (["target=64", "search.population=0"], r"search\.population"),
        (["target=64", "search.parents=65"], r"search\.parents=65 is more than population=64"),
        (["target=64", "workers=0"], r"workers: must be a finite number >= 1"),
        (["target=64", "name=a/b"], r"name: must be a name of letters, digits and _, got 'a/b'"),
        (["target=64", "context=32"], r"context: is that of the checkpoint; set the length to reach with target="),
        (["target=64", "tokenizer=bpe"], r"tokenizer: is that of the checkpoint"),
        (["target=64", "rope.factor=8"], r"rope\.factor: is what target=… and the search say; leave it out"),
        (["target=64", "rope.long=[1,2]"], r"rope\.long: is what target=… and the search say; leave it out"),
        (["target=64", "data.batch=2"], r"data\.batch: choose the option first, as in data=packed data\.batch=…"),
        (["target=64", "rope=longrop"], r"rope=longrop: no such option; did you mean longrope"),
    ],
)
def test_a_wrong_request_is_said_before_torch_is_needed(args, message):
    with pytest.raises(AptlabError, match=message):
        read_search_request(args)


@pytest.mark.parametrize(
    ("words", "expected"),
    [(["data=packed"], {"_target_": "x"}), (["data.files=a.txt"], {"files": "a.txt"}), ([], None)],
)
def test_a_request_without_a_source_has_that_of_the_checkpoint_for_other_rows(words, expected):
    Path("a.txt").write_text("Some words of a text. " * 20)
    request = read_search_request(["target=64", *words])
    filled = request.filled({"context": 16, "data": {"source": {"_target_": "x"}}})
    found = filled.get("source")
    assert found == expected or expected.items() <= found.items()
    assert words != ["data=packed"] or filled["data"]["source"] == {"_target_": "x"}


def test_reading_a_request_loads_no_torch():
    code = "import sys; from aptlab.commands.search import read_search_request; read_search_request(['target=2048']); "
    code += "assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_some_factors_stand_for_all():
    assert format_factors([1.0]) == "1.00"
    assert format_factors([float(i) for i in range(64)]) == "0.00 9.00 18.00 27.00 36.00 45.00 54.00 63.00"


def test_torch_gets_its_threads_back(run):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        run(*TEXT)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
