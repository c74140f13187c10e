"""Texts with a class: where they come from, how they become rows, and DyTox over tasks of them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

import aptlab
from aptlab.data.scenarios import ClassIncrementalTexts, NoScenario
from aptlab.data.sources import TextFiles
from aptlab.data.tasks import LabelledTextTasks
from aptlab.data.texts import LabelledFiles, SourceTexts
from aptlab.data.tokenizers import ByteTokenizer
from aptlab.errors import CheckpointError, ConfigError, DataError
from tests.continual.small import find_run_difference, read_state, read_tasks, resume_copy
from tests.continual.test_digits import WORDS as DIGITS

LABELS = ["low", "high", 3, "mark"]
LETTERS = {"low": "abcdef", "high": "UVWXYZ", 3: "012345", "mark": "!?.:-+"}
STEPS = 6


def write_rows(path: str = "rows.jsonl", *, each: int = 24) -> None:
    """A few rows of each label, of 6 to 12 characters."""
    rows = [
        {"text": "".join(LETTERS[label][(n * k + k) % 6] for k in range(6 + n % 7)) + str(n), "meta": {"label": label}}
        for n in range(each)
        for label in LABELS
    ]
    Path(path).write_text("\n".join(map(json.dumps, rows)) + "\n\n")


def make_texts(**given) -> LabelledFiles:
    return LabelledFiles(**{"files": "rows.jsonl", "labels": LABELS, "label": "meta.label", **given})


def make_data(**given) -> LabelledTextTasks:
    scenario = ClassIncrementalTexts(texts=make_texts(), tasks=2, val_fraction=0.3, **given)
    data = LabelledTextTasks(scenario, ByteTokenizer(), context=10, batch=4, seed=1)
    data.bind_steps(total=8, accumulate=1)
    data.prepare_data()
    return data


def test_rows_are_texts_with_padding_and_their_class():
    write_rows()
    data = make_data()
    assert (data.task_names, data.classes, data.vocab_size) == (("low+high", "3+mark"), 4, 257)
    assert make_data(shuffle=3).list_task_classes() != data.list_task_classes() == [[0, 1], [2, 3]]
    for task, classes in enumerate(data.list_task_classes()):
        rows = data.list_task_rows(task)
        assert set(data.find_labels(rows).tolist()) == set(classes)
        numbered = data.number_rows("train").read_contents(rows)
        batch = data.fetch_rows(rows)
        for row, text in enumerate(numbered.list_texts()):
            size = int(numbered.lengths[row])
            assert bytes(batch["inputs"][row, :size].tolist()).decode() == text
            assert batch["segments"][row].tolist() == [1] * size + [0] * (10 - size)
            assert text[0] in LETTERS[LABELS[batch["targets"][row]]]
    assert {int(size) for size in numbered.lengths} == {7, 8, 9, 10}
    assert data.number_rows("train").describe_row(0).startswith("train text 'rows.jsonl:")


def test_sides_share_no_text_and_do_not_move():
    write_rows()
    first = make_data()
    sides = [{text.text for text in first._sides[side]} for side in ("train", "val")]
    assert not sides[0] & sides[1]
    assert len(sides[0]) + len(sides[1]) == 4 * 24
    write_rows(each=30)
    later = make_data()
    assert {text.text for text in later._sides["val"]} >= sides[1]
    assert later.fingerprint != first.fingerprint


def test_passages_have_the_class_of_their_source():
    for name in ("one", "two"):
        Path(f"{name}.txt").write_text(name * 30)
    sources = {name: TextFiles(files=f"{name}.txt") for name in ("one", "two")}
    texts = SourceTexts(sources=sources, characters=20, samples=3).list_texts()
    assert [text.label for text in texts] == [0, 0, 0, 1, 1, 1]
    assert all(text.text in ("one" * 30, "two" * 30)[text.label] and len(text.text) in (10, 20) for text in texts)
    assert texts == SourceTexts(sources=sources, characters=20, samples=3).list_texts()
    assert len(SourceTexts(sources=sources, characters=20).list_texts()) == 2 * 5
    with pytest.raises(DataError, match=r"^sources.one has no document of 100 characters; give more text, or fewer"):
        SourceTexts(sources=sources, characters=200).list_texts()


def write_scenario() -> None:
    write_rows()
    lines = ["# Rows of a file.", "defaults:", "  - _self_", "  - override /data@_global_.data: labelled_texts"]
    lines += ["  - override /task@_global_.task: text_classification", "val_fraction: 0.3", "tasks: 2"]
    lines += ["_target_: aptlab.data.scenarios.ClassIncrementalTexts", "texts:", "  label: meta.label"]
    lines += ["  _target_: aptlab.data.texts.LabelledFiles", "  files: rows.jsonl", "  labels: [low, high, 3, mark]"]
    Path("conf/scenario").mkdir(parents=True)
    Path("conf/scenario/rows.yaml").write_text("\n".join(lines) + "\n")


def train(folder: str, *words: str) -> Path:
    mine = [word for word in DIGITS if not word.startswith("scenario=")]
    aptlab.train([*mine, "scenario=rows", f"trainer.max_steps={STEPS}", *words, f"run_dir={folder}"])
    return Path(folder)


DYTOX = ("task=dytox_text", "model.classes=4", "model.tasks=2", "replay=herding", "replay.policy.by=class")


def test_dytox_of_texts_resumes_to_the_bit_and_is_no_language_model():
    write_scenario()
    whole = train("whole", *DYTOX, "replay.capacity=8", "curriculum=length")
    assert np.shape(read_tasks(whole)["matrix"]) == (2, 2)
    assert find_run_difference(whole, resume_copy(whole, 4, "copy"), STEPS) is None
    ends = [read_state(whole, step) for step in (3, STEPS)]
    assert ends[1]["aptlab"]["tokenizer"]
    assert (ends[0]["state_dict"]["net.tokens.0"] == ends[1]["state_dict"]["net.tokens.0"]).all()
    assert (ends[0]["state_dict"]["net.inputs.table.weight"] != ends[1]["state_dict"]["net.inputs.table.weight"]).any()
    with pytest.raises(CheckpointError, match=r"holds a network that gives rows a class, and no language model; what"):
        aptlab.load(whole)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["task=classification"], r"net.inputs reads images, and the rows of these data are tokens; use task=text_cl"),
        (["task=dytox", "model.classes=4", "model.tasks=2"], r"net.inputs reads images, .* or dytox_text"),
        ([], r"net.classes=2, and the data have 4; set task.net.classes=4"),
        (
            ["task=dytox_text"],
            r"DyTox has \[2, 2, 2\] classes in its tasks, and the data have \[2, 2\]; set model.tasks=2",
        ),
        (
            ["scenario=split_digits", "task=text_classification", "vocab=300"],
            r"net.inputs reads tokens, and .* are images; use task=c",
        ),
        (["scenario=split_digits", "task=text_classification"], r"vocab=null, and these data have no tokens that"),
    ],
)
def test_what_does_not_fit_is_refused_before_there_is_a_folder(words, told):
    write_scenario()
    with pytest.raises(ConfigError, match=told):
        train("run", *([] if words else ["task.net.classes=2"]), *words)
    assert not Path("run").exists()


def write(text: str) -> None:
    Path("rows.jsonl").write_text(text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", r"rows.jsonl, line 1: no JSON: .*; mend the file"),
        ("[1]", r"rows.jsonl, line 1: expects a JSON object, got list; mend the file"),
        ('\n{"txt": "a"}', r"rows.jsonl, line 2: has no field 'text'.*; mend the file, or set field"),
        ('{"text": "a", "labels": 1}', r"rows.jsonl, line 1: has no field 'meta.label'.*; mend the file, or set label"),
        ('{"text": "a", "meta": {"label": 0.5}}', r"field 'meta.label' expects a word or a whole number, got 0.5"),
        (
            '{"text": "a", "meta": {"label": "x"}}',
            r"the label 'x' is none of labels=\['low', 'high', '3', 'mark'\]; add",
        ),
        ('{"text": "a", "meta": {"label": "low"}}', r"^labels=3: no row of the files has this label; leave it out, or"),
    ],
)
def test_a_row_that_is_no_sample_is_named(text, told):
    write(text)
    with pytest.raises(DataError, match=told):
        make_texts().list_texts()


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: make_texts(files=""), r"files is empty; give a file or a glob, such as files='reviews/\*.jsonl'"),
        (
            lambda: make_texts(labels=[]),
            r"labels is empty; name the classes .*The files have '3', 'high', 'low', 'mark'",
        ),
        (lambda: make_texts(labels=["low"]), r"labels=\['low'\] leaves nothing to tell apart; name 2 classes or more"),
        (lambda: make_texts(labels=[3, "3"]), r"labels: 3 stands there more than once; name each class once"),
        (lambda: SourceTexts(sources={}), r"sources=\[\] leaves nothing to tell apart"),
        (
            lambda: ClassIncrementalTexts(texts=make_texts(), tasks=5),
            r"tasks=5 leaves a task without a class, of 4; use",
        ),
        (
            lambda: LabelledTextTasks(NoScenario(), ByteTokenizer(), context=8, batch=2).prepare_data(),
            r"data=labelled_texts reads texts with a class, and NoScenario has none; choose scenario=split_texts",
        ),
    ],
)
def test_what_is_no_set_of_texts_is_told(make, told):
    write_rows()
    with pytest.raises(ConfigError, match=told):
        make()


def test_files_without_labels_packed_and_damaged_ones():
    write_rows()
    Path("rows.jsonl.gz").write_bytes(gzip.compress(Path("rows.jsonl").read_bytes()))
    plain, packed = make_texts().list_texts(), make_texts(files="rows.jsonl.gz").list_texts()
    assert [text[1:] for text in plain] == [text[1:] for text in packed]
    Path("rows.jsonl.gz").write_bytes(Path("rows.jsonl.gz").read_bytes()[:-9])
    with pytest.raises(DataError, match=r"rows.jsonl.gz cannot be read: "):
        make_texts(files="rows.jsonl.gz").list_texts()
    Path("rows.txt").write_text("text")
    with pytest.raises(DataError, match=r"^rows.txt has no labels; give .jsonl or .jsonl.gz files, a row a line"):
        make_texts(files="rows.txt").list_texts()


def test_a_task_without_a_text_on_a_side_is_named():
    write_rows()
    scenario = ClassIncrementalTexts(texts=make_texts(), tasks=2, val_fraction=0.999)
    with pytest.raises(
        DataError, match=r"the task low\+high has no train text; set another val_fraction or more texts"
    ):
        LabelledTextTasks(scenario, ByteTokenizer(), context=8, batch=2).prepare_data()
