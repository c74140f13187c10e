"""A sweep is found again under a root that was moved, those of earlier versions too: no finished job runs twice."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import pytest

from aptlab.errors import AptlabError
from aptlab.runs import Result, RunFolder
from aptlab.runs.atomic import write_yaml
from aptlab.sweep.folder import SweepFolder
from aptlab.sweep.grid import Grid
from aptlab.sweep.job import hash_words, make_sweep_name
from aptlab.sweep.optuna_search import OptunaSearch

SEEDS = (0, 1, 2)


def compose(overrides):
    """As the configuration of a job is: its hash knows every value but those that say where files go."""
    values = dict(word.split("=", 1) for word in overrides)
    composed = ",".join(f"{key}={value}" for key, value in sorted(values.items()) if key != "paths.root")
    root = values.get("paths.root", "outputs")
    cfg = SimpleNamespace(job="train", paths=SimpleNamespace(root=root))
    return SimpleNamespace(cfg=cfg, hash=lambda: composed, resolved=dict)


def plan(root, **options):
    return Grid(**options).make_plan([f"paths.root={root}", "seed=0,1,2"], compose)


def finish(folder, job):
    with RunFolder.create(run_dir=folder.run_dir(job)) as run:
        run.write_result(Result(job="train", seed=int(job.index), overrides=list(job.overrides)))


def open_sweep(root, made):
    folder = SweepFolder.open(root, made.name, kind=made.kind, fresh=made.fresh, earlier=made.find_earlier_name)
    folder.rename_keys(made.list_jobs())
    jobs = made.open_jobs(folder.path, folder.numbers)
    folder.close()
    return folder, jobs


def make_sweep(root, **options):
    made = plan(root, **options)
    folder, jobs = open_sweep(root, made)
    folder.write(jobs, kind="grid")
    for job in jobs:
        finish(folder, job)
    return folder, made


def make_older(folder, root):
    """The sweep as earlier versions wrote it: keys and name count `paths.root`, and nothing has a checksum."""
    word = f"paths.root={root}"
    keys = [hash_words([word, f"seed={seed}"], f"seed={seed}") for seed in SEEDS]
    records = [{**record, "key": key} for record, key in zip(folder.known, keys, strict=True)]
    write_yaml(folder.path / "sweep.yaml", {"name": "x", "kind": "grid", "jobs": records})
    return folder.path.rename(folder.path.with_name(make_sweep_name(keys)))


@pytest.mark.parametrize("moved", [False, True], ids=["where it was", "moved"])
@pytest.mark.parametrize("version", ["today", "earlier"])
@pytest.mark.parametrize("name", [None, "mine"])
def test_a_sweep_goes_on_where_it_stands(name, version, moved, tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    folder, _ = make_sweep(old, name=name)
    if version == "earlier":
        home = make_older(folder, old)
        if name:
            home.rename(old / name)
    if moved:
        shutil.move(old, new)
    root = new if moved else old
    again, jobs = open_sweep(root, plan(root, name=name))
    assert [again.result(job).seed for job in jobs] == [0, 1, 2]
    assert [job.index for job in jobs] == [0, 1, 2]
    assert len(list(root.iterdir())) == 1


def test_another_experiment_is_not_taken_for_it(tmp_path):
    folder, _ = make_sweep(tmp_path / "old")
    make_older(folder, tmp_path / "old")
    other = Grid().make_plan([f"paths.root={tmp_path}", "seed=0,1,2", "rope=yarn"], compose)
    found, jobs = open_sweep(tmp_path / "old", other)
    assert found.known == []
    assert [found.result(job) for job in jobs] == [None, None, None]
    finish(found, jobs[0])
    with pytest.raises(AptlabError, match=r"holds the result of another job \(without rope=standard\); move it away"):
        found.result(SimpleNamespace(**{**vars(jobs[0]), "folder": jobs[0].folder, "overrides": ("rope=standard",)}))


def test_a_search_has_the_name_that_it_had_whatever_its_root(tmp_path):
    pytest.importorskip("optuna")
    words = ["optim.lr=interval(1e-4,1e-2)", "seed=1"]
    plans = [OptunaSearch().make_plan([f"paths.root={root}", *words], compose) for root in ("/a", "/b")]
    assert plans[0].name == plans[1].name == OptunaSearch().make_plan(words, compose).name
    assert plans[0].find_earlier_name("paths.root=/a") == plans[1].find_earlier_name("paths.root=/a")
    assert plans[0].find_earlier_name("paths.root=/a") != plans[0].name
    assert OptunaSearch(name="mine").make_plan(words, compose).find_earlier_name("paths.root=/a") is None
