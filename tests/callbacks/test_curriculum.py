"""Curricula in real runs: resumed to the bit, the same on every rank, measured without a trace."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from tests.faults.parts import Outcome, Run, assert_same, file_state

import aptlab
from aptlab.callbacks.curriculum import CurriculumOrder, describe_rule, find_rule_change
from aptlab.callbacks.probing import evaluate_quietly, measure_batch
from aptlab.checkpoint import load_checkpoint, read_manifest
from aptlab.curriculum import (
    Campus,
    CompetenceGate,
    Curriculum,
    ModelLoss,
    SortedOrder,
    Stages,
    TokenCount,
    UnigramNLL,
)
from aptlab.curriculum.scores import prepare_course
from aptlab.data.loader import to_tensors
from aptlab.errors import ConfigError
from aptlab.testing import CallbackContract
from aptlab.testing.callbacks import SMALL, TEXTS, find_difference

pytestmark = pytest.mark.filterwarnings("ignore")

METRICS = {"n_tokens": TokenCount(), "unigram": UnigramNLL()}
GATE = CompetenceGate(threshold=0.05, patience=1, demote=0.02, max_steps=4)
RULES: dict[str, Curriculum] = {
    "campus": Campus(metrics={**METRICS, "loss": ModelLoss(refresh=2)}, slices=3, probe_share=None, replay=0.2),
    "stages": Stages(levels=3, every=2, probe=3, probe_share=None, gate=GATE),
    "sorted": SortedOrder(metric=ModelLoss()),
}


class Tell(Callback):
    """Writes which rows a rank trained on, and what its curriculum decided."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ids: list[list[int]] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.ids.append(batch["ids"].tolist())

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        order = next(one for one in trainer.callbacks if isinstance(one, CurriculumOrder))
        found = {"ids": self.ids, "timeline": order.timeline, "probed": order.probed_share}
        (self.folder / f"rank-{trainer.global_rank}.json").write_text(json.dumps(found))


@dataclass
class OrderedRun(Run):
    """A run of 25 rows with a curriculum."""

    rule: Curriculum = field(default_factory=SortedOrder)

    def train(self, ckpt: Path | None = None) -> Outcome:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.callbacks = [CurriculumOrder(self.rule, seed=3, every=1), Tell(self.folder)]
        return super().train(ckpt)

    def read(self, rank: int = 0) -> dict[str, Any]:
        return json.loads((self.folder / f"rank-{rank}.json").read_text())


def states(run: Run) -> Any:
    return load_checkpoint(run.last())["callbacks"]["CurriculumOrder"]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "settings"), [("campus", {}), ("stages", {"accumulate": 2}), ("sorted", {})])
def test_a_run_that_was_killed_or_stopped_anywhere_ends_equal_to_the_bit(name, settings, tmp_path):
    whole = OrderedRun(tmp_path / "whole", rule=RULES[name], **settings)
    ended = whole.train()
    for number, where in enumerate(("train.batch:9", "train.batch:6:TERM", "val.batch:1:TERM")):
        broken = OrderedRun(tmp_path / f"broken-{number}", rule=RULES[name], **settings)
        assert broken.in_child(where) in (137, 143)
        assert_same(broken.resume(), ended)
        assert find_difference(states(broken), states(whole)) is None
    assert len(whole.read()["timeline"]) > 1


def test_rows_come_in_the_order_of_the_curriculum(tmp_path):
    run = OrderedRun(tmp_path / "run", rule=SortedOrder(), steps=6)
    data = run.train().data
    ids = np.concatenate(run.read()["ids"])
    scores = prepare_course(SortedOrder(), data, seed=3).scores["metric"]
    assert (np.diff(scores[ids]) >= 0).all()
    assert len(set(ids.tolist())) == len(ids) == 24  # of 25 rows, so one pass


@pytest.mark.slow
@pytest.mark.parametrize("name", ["campus", "stages"])
def test_two_ranks_decide_the_same_and_resume_to_the_bit(name, tmp_path):
    whole = OrderedRun(tmp_path / "whole", rule=RULES[name], batch=2)
    assert whole.in_ranks({}) == [0, 0]
    one, two = whole.read(0), whole.read(1)
    assert one["timeline"] == two["timeline"]
    assert one["probed"] == two["probed"] > 0
    shared = [row for pair in zip(one["ids"], two["ids"], strict=True) for row in (*pair[0], *pair[1])]
    if name == "campus":
        new = [row for at, row in enumerate(shared) if row not in shared[:at]]
        assert sorted(new) == list(range(25))
    broken = OrderedRun(tmp_path / "broken", rule=RULES[name], batch=2)
    assert 137 in broken.in_ranks({1: "train.batch:8"})
    assert broken.in_ranks({}, broken.last()) == [0, 0]
    assert find_difference(states(broken), states(whole)) is None
    assert find_difference(file_state(broken.last()), file_state(whole.last())) is None


@pytest.mark.slow
def test_two_ranks_train_on_the_rows_of_one(tmp_path):
    one, two = OrderedRun(tmp_path / "one", steps=6), OrderedRun(tmp_path / "two", steps=6, batch=2)
    one.train()
    assert two.in_ranks({}) == [0, 0]
    pairs = zip(two.read(0)["ids"], two.read(1)["ids"], strict=True)
    assert [first + second for first, second in pairs] == one.read()["ids"]


def test_another_number_of_rows_in_a_batch_goes_on_in_the_same_order(tmp_path):
    whole, run = OrderedRun(tmp_path / "whole", steps=6), OrderedRun(tmp_path / "run", steps=6)
    whole.train()
    assert run.in_child("train.batch:5") == 137
    run.batch, position = 2, 4 * read_manifest(run.last()).step
    run.resume()
    rows = [[row for batch in one.read()["ids"] for row in batch] for one in (whole, run)]
    assert 0 < position < 20
    assert rows[1] == rows[0][position : position + len(rows[1])]


def test_another_curriculum_begins_anew_where_the_run_is(tmp_path, caplog):
    run = OrderedRun(tmp_path / "run", steps=3)
    run.train()
    run.rule, run.steps = Campus(metrics=METRICS), 5
    run.resume()
    was, now = "aptlab.curriculum.sorting.SortedOrder", "aptlab.curriculum.campus.Campus"
    assert f"another curriculum (rule.class {was}, now {now}): this one begins anew" in caplog.text
    assert len(run.read()["ids"]) == 2


def test_a_rule_is_another_one_where_a_value_is_and_not_where_its_class_has_got_more():
    before, now = (describe_rule(Campus(metrics=METRICS, slices=slices)) for slices in (4, 5))
    assert find_rule_change(before, before) is None
    assert find_rule_change(before, now) == "rule.slices 4, now 5"
    assert find_rule_change(before, {**before, "added": 1}) is None
    assert (find_rule_change(before, {**before, "metrics": {}}) or "").startswith("rule.metrics.n_tokens {'class'")


def test_probing_measures_what_validation_would_and_leaves_no_trace(tmp_path):
    outcome = OrderedRun(tmp_path / "run", rule=RULES["stages"], steps=2).train()
    trainer, task = outcome.trainer, outcome.task
    rows = outcome.data.number_rows("train")
    batch = to_tensors(rows.read_rows(np.arange(4)))
    task.train()
    frozen = next(iter(task.net.children()))
    frozen.eval()
    before, state = [part.training for part in task.modules()], torch.get_rng_state()
    with evaluate_quietly(trainer, task):
        assert not any(part.training for part in task.modules())
        loss, units = measure_batch(trainer, task, dict(batch), "loss")
        by_row, _ = measure_batch(trainer, task, dict(batch), "rows")
        found, _ = measure_batch(trainer, task, dict(batch), "accuracy")
        logits = task(batch).logits
        assert not loss.requires_grad
    assert [part.training for part in task.modules()] == before
    assert torch.equal(torch.get_rng_state(), state), "probing drew random numbers"
    assert units == 4 * 16
    assert loss[0].tolist() == pytest.approx(by_row.sum(0).tolist(), rel=1e-6)
    hits = sum(int(logits[i, t].argmax() == batch["targets"][i, t]) for i in range(4) for t in range(16))
    assert found.tolist() == [[hits, 64]]


def make_words(folder: Path, *words: str) -> list[str]:
    (folder / "texts.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in TEXTS))
    return [*SMALL, f"data.files={folder / 'texts.jsonl'}", f"run_dir={folder / 'run'}", "data.val_batches=1", *words]


REST = [pytest.param(name, marks=pytest.mark.slow) for name in ("anti", "length", "sorted")]


@pytest.mark.slow
@pytest.mark.parametrize("option", ["campus", "stages", *REST])
def test_every_option_trains_and_keeps_the_laws_of_callbacks(option):
    share = ["curriculum.probe_share=null"] if option in ("campus", "stages") else []
    every = ["curriculum.every=1"] if option == "stages" else []
    contract = CallbackContract()
    contract.words = (f"curriculum={option}", *share, *every)
    contract.test_a_continued_run_ends_with_the_same_weights_and_the_same_states()


def test_a_run_draws_its_timeline_and_tells_what_probing_cost(tmp_path, capsys):
    words = ["curriculum=campus", "curriculum.probe_share=1.0", "curriculum.slices=2", "trainer.max_steps=12"]
    words += ["curriculum.metrics.mtld=null"]
    run = aptlab.train(make_words(tmp_path, *words))
    assert run.path is not None
    assert (run.path / "curriculum.png").read_bytes()[:4] == b"\x89PNG"
    told = (run.path / "log.txt").read_text()
    assert "curriculum campus: " in told
    assert " tokens, " in told
    table = (run.path / "metrics.csv").read_text().splitlines()
    names = ("metric", "slice", "rows", "competence", "probed", "difficulty", "ppl_unigram")
    assert {f"curriculum/{name}" for name in names} <= set(table[0].split(","))
    assert f"figure   {run.path / 'curriculum.png'}" in capsys.readouterr().out


BAD = {
    "mixed": (
        ["curriculum=campus", "data=mixed", "data.rows.original_len=16"],
        r"^curriculum: Mixed rows have an order of their own.*use data=packed, or curriculum=none",
    ),
    "no callback": (
        ["curriculum=sorted", "callbacks.curriculum=null"],
        r"^curriculum: an order of rows is asked for, and no callback does it; use callbacks=default",
    ),
    "no probe": (
        ["curriculum=stages", "curriculum.every=1"],
        r"^curriculum: probe_share=0.05 of the 4 rows.*is not one row; use a larger every=1, or probe_share=null",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_is_told_before_there_is_a_folder(name, tmp_path):
    words, message = BAD[name]
    with pytest.raises(ConfigError, match=message):
        aptlab.train(make_words(tmp_path, *words))
    assert not (tmp_path / "run").exists()
