"""Scenarios: which task at which step, which images in which task, and what is no scenario."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from aptlab.data.images import Digits, PermutePixels, RotateImages
from aptlab.data.scenarios import ClassIncremental, DomainIncremental, Domains, NoScenario, TaskClock, plan_task_ends
from aptlab.data.sources import Installed, Joined, Stdlib, TextFiles
from aptlab.data.store.split import Split
from aptlab.data.tasks import ImageTasks, TextTasks
from aptlab.data.tokenizers import ByteTokenizer
from aptlab.errors import ConfigError, DataError
from aptlab.testing import SourceContract

NAMES = ("a", "b", "c")


def test_tasks_share_out_the_run_or_take_the_steps_they_are_given():
    assert plan_task_ends(None, NAMES, total=10) == (3, 6, 10)
    assert plan_task_ends(2, NAMES, total=10) == (2, 4, 10)
    assert plan_task_ends([1, 2, 3], NAMES, total=6) == (1, 3, 6)


def test_the_clock_is_a_function_of_the_micro_batch():
    clock = TaskClock((3, 5, 9), accumulate=2)
    assert [clock.find_task(number) for number in range(20)] == [0] * 6 + [1] * 4 + [2] * 10
    assert [clock.get_start(task) for task in range(3)] == [0, 6, 10]
    assert [clock.find_ended(step) for step in (0, 3, 4, 5, 9)] == [None, 0, None, 1, 2]


def make_tasks(scenario) -> ImageTasks:
    data = ImageTasks(scenario, batch=8, seed=1)
    data.bind_steps(total=20, accumulate=1)
    data.prepare_data()
    return data


def test_classes_come_one_pair_after_another():
    scenario = ClassIncremental(images=Digits())
    assert scenario.names == ("0+1", "2+3", "4+5", "6+7", "8+9")
    drawn = ClassIncremental(images=Digits(), shuffle=4).list_classes()
    assert sorted(label for classes in drawn for label in classes) == list(range(10))
    assert drawn != scenario.list_classes()
    data = make_tasks(scenario)
    for task, classes in enumerate(scenario.list_classes()):
        rows = data.list_task_rows(task)
        assert set(data.find_labels(rows).tolist()) == set(classes)
        batch = data.fetch_rows(rows[:3])
        assert batch["inputs"].shape == (3, 1, 8, 8)
        assert (batch["inputs"].min(), batch["inputs"].max()) == (0, 1)
        assert set(np.concatenate([part["targets"] for part in data.open_task_loader(task)])) <= {*classes, -100}
    assert len(data.joint_table) + sum(map(len, data.val_tables)) == 1797


def test_no_image_is_on_both_sides_and_every_task_is_shown_whole():
    data = make_tasks(ClassIncremental(images=Digits()))
    train, val = (
        {pixels.tobytes() for table in tables for pixels in table.pixels}
        for tables in (data.joint_table.tables, data.val_tables)
    )
    assert not train & val
    per_epoch = len(data.list_task_rows(0)) // 8
    data.bind_steps(total=5 * per_epoch, accumulate=1)
    seen = np.concatenate([data.find_samples(number).rows for number in range(per_epoch)])
    assert len(set(seen.tolist())) == per_epoch * 8


@pytest.mark.parametrize("transform", [PermutePixels(seed=3), RotateImages()], ids=lambda made: type(made).__name__)
def test_a_domain_is_the_same_images_changed_in_one_way(transform):
    data = make_tasks(DomainIncremental(images=Digits(), transform=transform, tasks=3))
    first, second = data.joint_table.tables[:2]
    assert (first.labels == second.labels).all()
    assert first.pixels.dtype == second.pixels.dtype == np.float32
    assert not np.allclose(first.pixels, second.pixels)
    if isinstance(transform, PermutePixels):
        assert (np.sort(first.pixels.reshape(len(first), -1)) == np.sort(second.pixels.reshape(len(second), -1))).all()
    else:
        assert abs(first.pixels.mean() - second.pixels.mean()) < 0.05


def test_images_hold_grey_levels_and_no_tokens():
    data = make_tasks(ClassIncremental(images=Digits()))
    rows, first = data.number_rows("train"), data.list_sections()[3].train[0]
    found = rows.read_contents(np.array([first + 5, 2]))
    assert (found.lengths, found.take([1]).lengths, found.list_texts()) == (None, None, None)
    own = data.joint_table.tables[3].rows(np.array([5]))["inputs"]
    assert found.tokens[0].tolist() == (255 * own).round().flatten().tolist()
    assert (rows.read_rows(found.ids)["ids"] == [first + 5, 2]).all()
    assert rows.describe_row(first + 5).startswith("train image 5 (class ")


def test_ranks_share_out_one_batch_of_one_task():
    data = make_tasks(ClassIncremental(images=Digits()))
    whole = data.find_samples(7)
    assert len(whole.rows) == 8
    assert set(whole.tasks.tolist()) == {1}
    assert (data._training_rows().batch(7)["ids"] == whole.rows).all()


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (
            lambda: ClassIncremental(images=Digits(), tasks=11),
            "tasks=11 leaves a task without a class, of 10; use fewer",
        ),
        (lambda: ClassIncremental(images=Digits(), val_fraction=1.5), r"val_fraction must be in \[0, 1\], got 1.5"),
        (lambda: make_tasks(ClassIncremental(images=Digits(), val_fraction=0.0)), r"task 0\+1 has no val image; set a"),
        (
            lambda: ImageTasks(NoScenario(), batch=2).prepare_data(),
            "data=image_tasks reads images, and NoScenario has none; choose scenario=split_digits",
        ),
        (lambda: Installed("no_such_package", [".h"]).fingerprint(), "package=no_such_package is not installed here"),
        (lambda: Installed("torch", []), r"suffixes=\[\] leaves no file; name the ends of files"),
        (lambda: Installed("torch", [".h"], "../x"), r"folder=../x leads out of the package; name a folder inside it"),
        (lambda: Installed("torch", [".h"], "nowhere").fingerprint(), "folder=nowhere: torch has no such folder here"),
        (lambda: Installed("aptlab", [".h"]).fingerprint(), r"suffixes=\['.h'\]: no such file with text under"),
        (lambda: Joined({}), "sources={} leaves no text; name at least one"),
    ],
)
def test_what_is_no_scenario_is_told(make, told):
    with pytest.raises((ConfigError, DataError), match=told):
        make()


def test_digits_without_their_package_say_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ConfigError, match=r"scikit-learn, which brings the digits, .* pip install 'aptlab\[images\]'"):
        Digits().load_images()


class TestInstalled(SourceContract):
    def make_source(self):
        return Installed("aptlab", ["names.py"], "config")

    def make_changed(self):
        return Installed("aptlab", ["overrides.py"], "config")


class TestJoined(SourceContract):
    def make_source(self):
        return Joined({"prose": Stdlib(parts=["prose"]), "config": Installed("aptlab", ["names.py"], "config")})

    def make_changed(self):
        return Joined({"prose": Stdlib(parts=["prose"]), "config": Installed("aptlab", ["overrides.py"], "config")})


def test_a_task_whose_text_is_too_short_is_named(tmp_path):
    (tmp_path / "long.txt").write_text("word " * 400)
    (tmp_path / "short.txt").write_text("few words")
    sources = {name: TextFiles(files=str(tmp_path / f"{name}.txt")) for name in ("long", "short")}
    data = TextTasks(Domains(sources=sources), ByteTokenizer(), context=32, batch=2, split=Split(val_fraction=0.3))
    with pytest.raises(DataError, match=r"the task short has nothing to learn from or to be measured on: context"):
        data.prepare_data()
    with pytest.raises(DataError, match="a run over several tasks has no single text to measure on; name one, as in"):
        data.windows()
