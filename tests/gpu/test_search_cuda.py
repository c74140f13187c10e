"""A search for factors by several processes on CUDA devices. Skipped without one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tests.commands.trained import make_run, write_texts

from aptlab.cli import main

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
SIZES = ("population=6", "parents=3", "iterations=2", "mutations=3", "crossovers=2", "samples=3")


def test_two_workers_find_what_one_finds(tmp_path: Path):
    """Each with a device of its own where there are two, else with a share of one."""
    ckpt = make_run(tmp_path / "outputs", texts=write_texts(tmp_path / "texts.jsonl", documents=60, words=200))
    words = [f"ckpt={ckpt}", "rope=longrope2", "search.objective=ppl", "target=256", "device=cuda"]
    words += [*(f"search.{size}" for size in SIZES)]
    found, scores = [], []
    for workers in (1, 2):
        assert main(["search", *words, f"workers={workers}", f"out=by_{workers}", f"name=by_{workers}"]) == 0
        result = json.loads(Path(f"by_{workers}", "search.json").read_text())
        found.append(result["found"]["factors"])
        scores.append(result["scores"])
    assert found[0] == found[1]
    assert scores[0] == pytest.approx(scores[1], rel=1e-6)
