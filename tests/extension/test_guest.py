"""One package of someone else's brings a part of every kind and a command; each is a part like ours."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from aptlab.checkpoint import find_checkpoint, load_checkpoint
from aptlab.cli import main
from aptlab.config import build, check, compose
from aptlab.errors import AptlabError, ConfigError
from aptlab.testing import CallbackContract, RopeContract, RowsContract, SmoothContract, SourceContract
from tests.commands.forked import run_forked
from tests.commands.small_run import newest

SOURCE = Path(__file__).parent / "aptlab_guest" / "src"
ENTRIES = "[aptlab.conf]\naptlab_guest = aptlab_guest\n[aptlab.commands]\ncount = aptlab_guest.command:run\n"
PARTS = {
    "rope": "slow_start",
    "attention": "fading_mean",
    "ffn": "routed",
    "smooth": "shrunk",
    "source": "numbers",
    "data": "overlapping",
    "objective": "smoothed_labels",
}
SMALL = ["size=debug", "context=32", "device=cpu", "logger=csv", "trainer=debug", "trainer.max_steps=6"]
SMALL += ["validate.every=3", "callbacks.checkpoints.every=2", "callbacks.checkpoints.keep=9"]
SMALL += ["data.batch=4", "data.val_batches=2", "data.split.val_fraction=0.3", "objective.aux={balance: 0.01}"]
GUEST = [*(f"{group}={option}" for group, option in PARTS.items()), "callbacks=[default,token_counter]"]
GUEST += ["+eval@evals.first_tokens=first_tokens"]


def install(site: Path) -> Path:
    """What `pip install -e` leaves in a site folder, made by hand: no network, no build."""
    info = site / "aptlab_guest-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: aptlab-guest\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text(ENTRIES)
    (site / "aptlab_guest").symlink_to(SOURCE / "aptlab_guest")
    return site


@pytest.fixture
def site(tmp_path, monkeypatch) -> Path:
    found = install(tmp_path / "site")
    monkeypatch.syspath_prepend(str(found))
    return found


def run_aptlab(site: Path, *words: str) -> subprocess.CompletedProcess[str]:
    paths = [str(site), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-m", "aptlab", *words]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)


def test_the_entry_points_are_those_of_the_package():
    text = (SOURCE.parent / "pyproject.toml").read_text()
    assert 'entry-points."aptlab.conf"]\naptlab_guest = "aptlab_guest"' in text
    assert 'entry-points."aptlab.commands"]\ncount = "aptlab_guest.command:run"' in text


@pytest.mark.parametrize(
    ("group", "option"), [*PARTS.items(), ("eval", "first_tokens"), ("callbacks", "token_counter")]
)
def test_every_part_is_listed_completed_explained_and_checked(site, capsys, group, option):
    assert main(["ls", group]) == 0
    line = rf"^{option} +.*from another package.*\(extension aptlab_guest\)$"
    assert re.search(line, capsys.readouterr().out, re.MULTILINE)
    command = "eval" if group == "eval" else "train"
    assert main(["__complete", command, f"{group}={option[:4]}"]) == 0
    assert f"{group}={option}" in capsys.readouterr().out.split()
    assert main(["show", f"{group}={option}"]) == 0
    assert "from another package" in capsys.readouterr().out
    if group != "eval":
        check(compose("train", [f"{group}={option}" if group != "callbacks" else f"callbacks=[default,{option}]"]))


def test_the_command_is_listed_completed_explained_checked_and_run(site, capsys):
    assert main([]) == 0
    assert re.search(r"^  count +Count the characters of a text$", capsys.readouterr().out, re.MULTILINE)
    assert main(["__complete", "cou"]) == 0
    assert capsys.readouterr().out.split() == ["count"]
    assert main(["__complete", "count", "ti"]) == 0
    assert capsys.readouterr().out.split() == ["times="]
    assert main(["count", "--help"]) == 0
    assert "how often" in capsys.readouterr().out
    assert main(["count", "text=hello", "times=2"]) == 0
    assert capsys.readouterr().out == "10 characters\n"
    assert main(["count", "text=hello", "times=0"]) == 2
    assert "times: must be a finite number >= 1, got 0" in capsys.readouterr().err


def test_a_command_with_a_name_of_ours_is_refused(site, capsys):
    (site / "aptlab_guest-0.1.0.dist-info" / "entry_points.txt").write_text("[aptlab.commands]\ntrain = a.b:run\n")
    assert main(["trian"]) == 2
    assert (
        "the command train of a.b:run has the name of one of aptlab's; rename its entry point"
        in capsys.readouterr().err
    )


@pytest.mark.slow
def test_all_parts_train_resume_after_a_kill_evaluate_and_say_why_they_cannot_be_exported(site, tmp_path, capsys):
    words = [*SMALL, *GUEST]
    whole = run_aptlab(
        site, "train", *SMALL, *GUEST, f"run_dir={tmp_path / 'whole'}", "callbacks.token_counter.file=whole.txt"
    )
    assert whole.returncode == 0, whole.stderr
    assert "no weight and is not minimised" not in whole.stderr
    assert "first tokens: [{'token': " in whole.stdout
    broken = run_forked("train", *words, f"run_dir={tmp_path / 'run'}", fault="train.batch:5", path=str(site))
    assert broken.returncode == -signal.SIGKILL
    again = ("train", f"ckpt={tmp_path / 'run'}", "callbacks.token_counter.file=resumed.txt")
    resumed = run_forked(*again, path=str(site))
    assert resumed.returncode == 0, resumed.stderr
    first, second = (
        load_checkpoint(find_checkpoint(tmp_path / name, which="last"))["state_dict"] for name in ("whole", "run")
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert Path("whole.txt").read_text() == Path("resumed.txt").read_text() == f"{6 * 4 * 32}\n"
    assert main(["eval", f"ckpt={tmp_path / 'run'}", "eval=first_tokens", "eval.count=2", "device=cpu"]) == 0
    assert "first tokens: [{'token': " in capsys.readouterr().out
    assert main(["generate", f"ckpt={tmp_path / 'run'}", "prompt=1 2", "max_new_tokens=5", "device=cpu"]) == 0
    assert main(["export", f"ckpt={tmp_path / 'run'}", f"out={tmp_path / 'hf'}"]) == 2
    assert "cannot be exported" in capsys.readouterr().err
    made = newest(str(tmp_path))
    assert made.choices["attention"] == "fading_mean"
    assert made.result is not None
    assert "train/aux/balance" in made.metrics() or any("balance" in name for name in made.metrics())


class TestSlowStart(RopeContract):
    @pytest.fixture(autouse=True)
    def _rule(self, site):
        self.rule = build({"_target_": "aptlab_guest.rope.SlowStart"})


class TestShrunk(SmoothContract):
    @pytest.fixture(autouse=True)
    def _factory(self, site):
        self.factory = build({"_target_": "aptlab_guest.smooth.Shrunk", "_partial_": True})


class TestTokenCounter(CallbackContract):
    words = ("callbacks=[default,token_counter]", "callbacks.token_counter.file=tokens.txt")

    @pytest.fixture(autouse=True)
    def _installed(self, site, monkeypatch, tmp_path):
        monkeypatch.chdir(tmp_path)


class TestNumbers(SourceContract):
    @pytest.fixture(autouse=True)
    def _installed(self, site):
        pass

    def make_source(self):
        return build({"_target_": "aptlab_guest.source.Numbers"})

    def make_changed(self):
        return build({"_target_": "aptlab_guest.source.Numbers", "length": 61})


class TestOverlapping(RowsContract):
    @pytest.fixture(autouse=True)
    def _kind(self, site):
        self.kind = build({"_target_": "aptlab_guest.rows.Overlapping"})


BROKEN = {
    "attention": ("class Part:\n    def __init__(self, shape, *, layer): ...\n", "attention: .*Part.*count_flops"),
    "ffn": ("class Part:\n    def __init__(self, shape, *, layer): ...\n", "ffn: .*Part.*forward"),
    "smooth": ("class Part:\n    def __init__(self, dim, *, layer, site): ...\n", "smooth: .*Part.*forward"),
    "rope": ("class Part: ...\n", "rope: .*Part.*inv_freq"),
    "source": ("class Part: ...\n", "source: .*Part.*documents"),
    "objective": ("class Part: ...\n", "objective: .*Part.*compute_parts"),
    "eval": ("class Part: ...\n", "eval: .*Part.*measure"),
    "callbacks": ("class Part: ...\n", "callbacks.part: .*Part"),
}


@pytest.mark.parametrize("group", BROKEN)
def test_a_part_that_breaks_its_contract_is_refused_before_a_run_has_a_folder(group, monkeypatch, tmp_path):
    text, message = BROKEN[group]
    monkeypatch.setenv("APTLAB_TRUST", f"loose_{group}")
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / f"loose_{group}.py").write_text(f'"""A part without its contract."""\n{text}')
    folder = Path("conf") / group
    folder.mkdir(parents=True)
    layer = group in ("attention", "ffn", "smooth")
    node = f"_target_: loose_{group}.Part\n" + ("_partial_: true\n" if layer else "")
    node = "part:\n  " + node if group == "callbacks" else node
    (folder / "broken.yaml").write_text(f"# A part that breaks its contract.\n{node}")
    words = ["callbacks=[default,broken]"] if group == "callbacks" else [f"{group}=broken"]
    with pytest.raises((ConfigError, AptlabError), match=f"(?s){message}"):
        check(compose("eval" if group == "eval" else "train", words))
    assert not Path("outputs").exists()
