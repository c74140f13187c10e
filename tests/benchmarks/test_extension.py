"""The extension study from corpus to report, as small as it goes, and on again after a stop."""

from __future__ import annotations

import functools
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from aptlab.cli import main

ROOT = Path(__file__).parents[2]
STUDY = ROOT / "benchmarks" / "extension"


@functools.cache
def load(name: str) -> ModuleType:
    """A script of the study, which is no package; loaded once, for each start of Python and torch takes seconds."""
    spec = importlib.util.spec_from_file_location(f"study_{name}", STUDY / f"{name}.py")
    sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[spec.name])
    return sys.modules[spec.name]


@pytest.fixture
def study(monkeypatch, capsys):
    """Run a script of the study with these words; returns what it printed."""
    monkeypatch.syspath_prepend(STUDY)

    def call(name: str, *words: object) -> str:
        monkeypatch.setattr(sys, "argv", [str(STUDY / f"{name}.py"), *map(str, words)])
        capsys.readouterr()
        load(name).main()
        return capsys.readouterr().out

    return call


def python(*words: object) -> str:
    """The same as a user runs it; returns what it printed."""
    done = subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_it_goes_from_corpus_to_report_and_on_after_a_stop(tmp_path, study):
    corpus, journal = tmp_path / "corpus.jsonl", tmp_path / "journal.jsonl"
    base, irope, third = tmp_path / "base", tmp_path / "irope", tmp_path / "ntk"
    bases = [base, irope]
    python(STUDY / "corpus.py", "--out", corpus, "--documents", 60, "--workers", 1)
    rows = [json.loads(line)["text"] for line in corpus.read_text().splitlines()]
    assert {len(text.encode()) for text in rows} == {511}
    as_irope = ["rope=irope", "rope.chunk=128", "rope.growth.floor=512"]
    for folder, words in ((base, []), (irope, as_irope), (third, ["rope=ntk"])):
        assert main([
            "train", "recipe=context_base", "size=debug", f"data.files={corpus}", f"run_dir={folder}",
            "data.batch=4", "data.val_batches=1", "trainer.max_steps=2", "validate.every=2", "logger=csv",
            "device=cpu", *words,
        ]) == 0  # fmt: skip
    small = [
        "--factors", 2, "--methods", "yarn", "longrope2", "longrope2_mixed", "irope", "irope_trained", "--steps", 1,
        "--tokens-per-step", 10_240, "--text-tokens", 4096, "--passkeys", 2, "--ruler", 1, "--population", 8,
        "--iterations", 1,
    ]  # fmt: skip
    stopped = python(STUDY / "run.py", *bases, "--journal", journal, *small, "--seconds", 0)
    assert "0.0 seconds are over before" in stopped
    done = study("run", *bases, "--journal", journal, *small)
    assert "all 11 measurements" in done
    lines = journal.read_text().splitlines()
    journal.write_text(journal.read_text() + '{"kind": "res')  # as a crash leaves it
    assert [json.loads(line)["kind"] for line in lines].count("result") == 11
    assert study("run", *bases, "--journal", journal, *small).startswith("all 11 measurements")
    assert journal.read_text().splitlines() == lines
    for folders, words, why in (
        (bases, ["--ruler", 2], "was measured with ruler=1, now 2; repeat those, or name another --journal"),
        ([base, base], [], "another base has seed 0 too; give one of them, or train it anew"),
        ([base], [], "--methods: no base is given for irope_trained (trained with IRope)"),
        ([third], [], "was trained with NTK; there are methods for IRope, Standard"),
    ):
        with pytest.raises(SystemExit, match=re.escape(why)):
            study("run", *folders, "--journal", journal, *small, *words)
    python(STUDY / "report.py", journal, "--out", tmp_path)
    report = (tmp_path / "extension.md").read_text()
    assert "| longrope2_mixed | 1 " in report
    assert "`irope_trained` at L: perplexity " in report
    assert "2 times the length, after 1 steps of fine-tuning" in report
    assert (tmp_path / "extension_lengths.png").stat().st_size > 10_000
    assert (tmp_path / "extension_tasks_2.png").stat().st_size > 10_000
    other_seed = tmp_path / "other.jsonl"
    note = '{"kind": "note", "text": "Two at once."}\n'
    other_seed.write_text(journal.read_text().replace('"seed": 0', '"seed": 1') + note)
    study("report", journal, other_seed, "--out", tmp_path, "--name", "both")
    report = (tmp_path / "both.md").read_text()
    assert "| longrope2_mixed | 2 " in report
    assert "journal is `both.jsonl`\n- options of `run.py`: `--steps 1 --tokens-per-step 10240 " in report
    assert report.endswith("\n- Two at once.\n")
    for text, why in (
        (journal.read_text().replace('"ruler": 1', '"ruler": 2'), "these journals have different settings"),
        (journal.read_text(), "is measured twice"),
    ):
        other_seed.write_text(text)
        with pytest.raises(SystemExit, match=why):
            study("report", journal, other_seed, "--out", tmp_path)
