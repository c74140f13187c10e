"""The comparison of runs: who is grouped with whom, who is best, what is warned of, and what the files hold."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest
import yaml

from aptlab.report.comparison import compare_runs
from aptlab.report.groups import describe_start
from aptlab.report.validation import describe_validation_rows
from aptlab.report.write import WIDTH, format_comparison, format_comparison_csv
from aptlab.runs import find_runs
from tests.report.making import make_run

RUNS = Path("runs")


def family(rope: str, losses: list[float | None], **changes) -> None:
    for seed, loss in enumerate(losses):
        make_run(RUNS, f"{rope}-{seed}", seed=seed, loss=loss, choices={"rope": rope}, **changes)


def compared(**options):
    return compare_runs(find_runs([RUNS]), **options)


def test_runs_that_differ_in_seed_and_folder_only_are_one_group():
    family("standard", [1.5, 1.6, 1.7])
    found = compared()
    assert [group.name for group in found.groups] == ["all runs"]
    assert found.cells[0][0] is not None
    assert found.cells[0][0].n == 3
    assert found.verdict == "one row only: its numbers stand here, and nothing is ranked"


def test_only_columns_that_differ_are_shown():
    family("standard", [1.5])
    family("yarn", [1.5])
    make_run(RUNS, "z", lr=3e-3, choices={"rope": "yarn", "logger": "wandb"})
    found = compared()
    labels = [group.labels for group in found.groups]
    assert {"rope": "standard", "optim.lr": "0.001"} in labels
    assert {"rope": "yarn", "optim.lr": "0.003"} in labels
    assert all(set(label) == {"rope", "optim.lr"} for label in labels)


def test_the_best_row_is_marked_if_its_interval_is_apart():
    family("standard", [1.500, 1.501, 1.502])
    family("yarn", [1.400, 1.401, 1.402])
    found = compared()
    assert found.best == 1
    assert found.verdict == "best val/loss: rope=yarn (its 95 % interval overlaps no other)"
    assert "yarn *" in format_comparison(found, terminal=False)


def test_overlapping_rows_are_not_separated():
    family("standard", [1.5, 1.4, 1.6])
    family("yarn", [1.45, 1.35, 1.55])
    found = compared()
    assert found.best is None
    assert found.verdict == "not separated: the 95 % interval of rope=yarn overlaps that of rope=standard"
    assert "*" not in format_comparison(found, terminal=False)


def test_one_seed_separates_nothing():
    family("standard", [1.5])
    family("yarn", [1.0])
    found = compared()
    assert found.best is None
    assert found.verdict == "not separated: rope=yarn leads, but one seed gives no interval; run at least 3 seeds"
    assert "±" not in format_comparison(found, terminal=False).splitlines()[2]


def test_a_row_with_a_diverged_run_is_never_the_best():
    family("standard", [1.5, 1.51, 1.52])
    family("yarn", [1.0, 1.001, None])
    found = compared()
    assert found.best is None
    assert found.verdict == "rope=yarn has the best mean val/loss, but 1 of its runs diverged"
    assert "(2 of 3)" in format_comparison(found, terminal=False)


def test_the_difference_is_paired_over_common_seeds():
    family("standard", [1.5, 1.7, 1.6])
    family("yarn", [1.4, 1.6, 1.5])
    difference = compared().differences[1]
    assert difference is not None
    assert difference.mean == pytest.approx(-0.1)
    assert difference.half == pytest.approx(0, abs=1e-9)
    other = compared(baseline="rope=yarn").differences
    assert other[0] is not None
    assert other[0].mean == pytest.approx(0.1)
    assert other[1] is None


@pytest.mark.parametrize(
    ("changes", "warning"),
    [
        ({"steps": 110, "tokens": 110 * 512}, "not the same budget: steps 100 (rope=standard) against 110 (rope=yarn)"),
        ({"tokens": 200 * 512}, "not the same budget: tokens per step 512 (rope=standard) against 1,024 (rope=yarn)"),
        ({"parameters": 5100}, "not the same budget: parameters 5,000 (rope=standard) against 5,100 (rope=yarn)"),
        ({"context": 128}, "not the same budget: context 64 (rope=standard) against 128 (rope=yarn)"),
        (
            {"data": {"name": "other", "fingerprint": "x"}},
            "not the same data: text [abc] (rope=standard) against other [x] (rope=yarn); losses cannot be compared",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_unequal_budgets_are_warned_of(changes, warning):
    family("standard", [1.5])
    family("yarn", [1.5], **changes)
    assert compared().warnings == [warning]


def test_equal_budgets_are_not_warned_of():
    family("standard", [1.5])
    family("yarn", [1.5], parameters=5040)
    assert compared().warnings == []


def test_rows_can_be_pooled_and_say_so():
    family("standard", [1.5])
    make_run(RUNS, "z", seed=0, loss=1.7, lr=3e-3)
    found = compared(by=["rope"])
    assert found.cells[0][0] is not None
    assert (found.cells[0][0].n, found.cells[0][0].mean) == (2, pytest.approx(1.6))
    assert found.notes == ["by=rope: rows average over runs that also differ in optim.lr"]


def test_a_repeated_seed_counts_once():
    make_run(RUNS, "a", loss=1.5)
    make_run(RUNS, "b", loss=1.7)
    found = compared()
    assert found.notes == [f"all runs: seed 0 was run more than once; the latest is used ({RUNS / 'b'})"]
    assert found.cells[0][0] is not None
    assert (found.cells[0][0].n, found.cells[0][0].mean) == (1, 1.7)


def test_csv_has_every_digit():
    losses = [1.1234567890123456, 1.2345678901234567]
    family("standard", losses)
    (row,) = csv.DictReader(format_comparison_csv(compared()).splitlines())
    assert float(row["val/loss"]) == sum(losses) / 2
    assert row["seeds"] == "0 1"
    assert float(row["val/loss ±95%"]) == pytest.approx(12.7062047 * (losses[1] - losses[0]) / 2, rel=1e-7)
    assert row["val/loss n"] == "2"


ROWS = {"val_batches": 32, "batch": 16, "rows": {"document_mask": False}}


def set_config(name: str, **config) -> None:
    path = RUNS / name / "config.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "context": 64, **config}))


def test_other_validation_rows_are_warned_of():
    family("standard", [1.5])
    family("yarn", [1.5])
    set_config("standard-0", data=ROWS)
    set_config("yarn-0", data={**ROWS, "batch": 8})
    (warning,) = compared().warnings
    assert warning == (
        "not the same validation rows: 512 rows of 64 tokens (rope=standard) against 256 rows of 64 tokens "
        "(rope=yarn); val/loss cannot be compared"
    )
    assert compared().verdict == "not ranked: val/loss was not measured on the same rows of text"
    assert compared(metric="ppl@1x").verdict.startswith("not separated")


def text_family(rope: str, file: str, losses: list[float]) -> None:
    """Runs on a text file of their own, which their configuration names."""
    family(rope, losses, data={"name": "files", "fingerprint": f"{file:0<64}"})
    for seed in range(len(losses)):
        set_config(f"{rope}-{seed}", data=ROWS, source={"_target_": "x", "files": f"{file}.txt", "field": "text"})


def test_rows_on_other_texts_have_no_leader_and_no_difference():
    text_family("standard", "aaa", [1.500, 1.501, 1.502])
    text_family("yarn", "bbb", [1.400, 1.401, 1.402])
    found = compared()
    shown = format_comparison(found, terminal=False)
    assert (found.best, found.differences) == (None, [None, None])
    assert found.verdict == "not ranked: val/loss was not measured on the same rows of text"
    assert "d val/loss" not in shown
    assert "leads" not in shown
    assert found.warnings == [
        "not the same data: files source.files=aaa.txt [aaa00000] (rope=standard) against "
        "files source.files=bbb.txt [bbb00000] (rope=yarn); losses cannot be compared"
    ]
    assert compared(metric="tokens/s").differences[1] is not None


def test_rows_on_the_same_text_are_ranked_among_themselves():
    text_family("standard", "aaa", [1.500, 1.501, 1.502])
    text_family("yarn", "bbb", [1.400, 1.401, 1.402])
    text_family("ntk", "aaa", [1.300, 1.301, 1.302])
    found = compared()
    ntk, standard, yarn = (
        next(i for i, g in enumerate(found.groups) if g.name == f"rope={r}") for r in ("ntk", "standard", "yarn")
    )
    assert [found.differences[i] is None for i in (ntk, standard, yarn)] == [True, False, True]
    assert found.best is None
    assert "among rope=ntk, rope=standard, on the same: best val/loss: rope=ntk (its 95 %" in found.verdict
    assert "d val/loss" in format_comparison(found, terminal=False)


def tokens_family(tokenizer: str, bits: list[float], *, text: str | None, val_batches: int | None = None) -> None:
    """Runs with tokens of their own on one text."""
    data = {"name": "files", "fingerprint": f"{tokenizer:0<64}", "val_tokens": 961} | (
        {"val_text": text} if text else {}
    )
    for seed, value in enumerate(bits):
        folder = make_run(
            RUNS,
            f"{tokenizer}-{seed}",
            seed=seed,
            data=data,
            choices={"tokenizer": tokenizer},
            metrics={"val/loss": 2.0 * value, "val/bpb": value},
        )
        set_config(folder.name, context=64, data={"val_batches": val_batches, "batch": 2, "rows": {}})


BITS = {"bytes": [1.500, 1.501, 1.502], "bpe": [1.400, 1.401, 1.402]}


def test_bits_per_byte_of_one_text_are_ranked_whatever_its_tokens_are():
    for name, bits in BITS.items():
        tokens_family(name, bits, text="a" * 64)
    found = compared(metric="val/bpb")
    assert (found.best, found.differences[1].mean) == (0, pytest.approx(0.1))
    assert found.verdict == "best val/bpb: tokenizer=bpe (its 95 % interval overlaps no other)"
    (warning,) = found.warnings
    assert warning.endswith("losses cannot be compared, val/bpb can: they have one validation text")
    assert compared().verdict == "not ranked: val/loss was not measured on the same rows of text"
    assert compared(metric="ppl@1x").verdict.startswith("not ranked")


@pytest.mark.parametrize(
    ("first", "second", "warning"),
    [
        ({"text": "a" * 64}, {"text": "b" * 64}, "losses cannot be compared"),
        (
            {"text": "a" * 64},
            {"text": None},
            "the result of tokenizer=bpe does not name its validation text, as those of earlier versions; train it "
            "again to rank val/bpb over other tokens",
        ),
        (
            {"text": "a" * 64, "val_batches": 8},
            {"text": "a" * 64, "val_batches": 2},
            "tokenizer=bpe was validated on 26.7 % of its validation text, and other tokens give another part; to rank "
            "val/bpb over other tokens take data.val_batches=null and a text of many rows",
        ),
    ],
)
def test_bits_per_byte_of_other_or_unknown_text_are_not_ranked(first, second, warning):
    tokens_family("bytes", BITS["bytes"], **first)
    tokens_family("bpe", BITS["bpe"], **second)
    found = compared(metric="val/bpb")
    assert (found.best, found.differences) == (None, [None, None])
    assert found.verdict == "not ranked: val/bpb was not measured on the same rows of text"
    assert found.warnings[-1].endswith(warning)


def test_an_older_result_on_the_same_tokens_is_ranked_as_before():
    tokens_family("bytes", BITS["bytes"], text="a" * 64)
    for seed in range(3):
        data = {"name": "files", "fingerprint": f"{'bytes':0<64}", "val_tokens": 961}
        folder = make_run(RUNS, f"old-{seed}", seed=seed, data=data, choices={"tokenizer": "bytes", "rope": "yarn"})
        set_config(folder.name, context=64, data={"val_batches": None, "batch": 2, "rows": {}})
    assert compared(metric="val/bpb").best == 0


def test_a_warning_names_texts_and_not_only_rows():
    for file in ("a", "b"):
        folder = make_run(RUNS, file, data={"name": "files", "fingerprint": f"{file:0<64}"}, choices={"x" * 60: file})
        set_config(file, source={"files": f"{file}.txt"})
        words = yaml.safe_load((folder / "overrides.yaml").read_text())
        (folder / "overrides.yaml").write_text(yaml.safe_dump([*words, f"source.files={file}.txt"]))
    shown = " ".join(format_comparison(compared(by=["source.files"]), terminal=False).split())
    assert "files source.files=a.txt [a0000000] (source.files=a.txt) against" in shown
    shown = " ".join(format_comparison(compared(), terminal=False).split())
    assert "files source.files=a.txt [a0000000] (row 1) against files source.files=b.txt [b0000000] (row 2)" in shown


@pytest.mark.parametrize(
    ("config", "rows"),
    [
        ({"data": {**ROWS, "val_batches": None}}, "all rows of 64 tokens"),
        ({"data": {**ROWS, "rows": {"document_mask": True}}}, "512 rows of 64 tokens that end at their documents"),
        ({"data": ROWS, "trainer": {"limit_val_batches": 3}}, "512 rows of 64 tokens, limit_val_batches=3"),
        ({"data": {"name": "other"}}, ""),
    ],
)
def test_validation_rows_are_described(config, rows):
    assert describe_validation_rows({"context": 64, **config}) == rows


def test_runs_from_trained_weights_are_not_ranked_with_runs_from_scratch():
    family("standard", [1.500, 1.501, 1.502])
    origin = {"checkpoint": "outputs/base/checkpoints/step-00000400.ckpt", "step": 400}
    for seed, loss in enumerate([1.4, 1.401, 1.402]):
        make_run(RUNS, f"weights-{seed}", seed=seed, loss=loss, origin=origin)
    found = compared()
    assert [group.labels for group in found.groups] == [{"start": "scratch"}, {"start": "base@400"}]
    assert found.best is None
    assert found.verdict == "not ranked: the runs did not begin alike: scratch, base@400"
    assert found.warnings == ["steps, tokens and seconds do not count what trained weights cost before"]
    assert compare_runs(find_runs([RUNS / "weights-0", RUNS / "weights-1"])).warnings == []


def test_dims_are_no_columns_where_the_size_is_named():
    make_run(RUNS, "a", choices={"size": "tiny"})
    folder = make_run(RUNS, "b", choices={"size": "135M"})
    text = yaml.safe_load((folder / "overrides.yaml").read_text())
    (folder / "overrides.yaml").write_text(yaml.safe_dump([*text, "size.dim=576", "size.depth=30"]))
    assert [group.name for group in compared().groups] == ["size=tiny", "size=135M"]
    for name, text in (("c", "size.dim=96"), ("d", "size.dim=80")):
        folder = make_run(RUNS, name, choices={"size": "135M"})
        (folder / "overrides.yaml").write_text(yaml.safe_dump([text]))
    assert "size.dim" in compared().groups[-1].labels


def test_the_start_of_an_older_run_is_read_from_its_command():
    folder = make_run(RUNS, "old")
    (folder / "environment.json").write_text(
        '{"command": ["aptlab", "train", "ckpt=base", "load=weights", "rope=ntk"]}'
    )
    (run,) = find_runs([folder])
    assert describe_start(run) == "weights of base"


def test_no_line_is_wider_than_the_page_and_long_settings_stand_below_by_their_row():
    words = {f"callbacks.checkpoints.option_number_{i}": f"a-long-value-{i}" for i in range(6)}
    for rope in ("standard", "yarn"):
        for seed in (0, 1):
            make_run(RUNS, f"{rope}-{seed}", seed=seed, loss=1.5 + seed / 9, choices={"rope": rope, **words})
    set_config("yarn-0", data=ROWS)
    for i in range(6):
        make_run(
            RUNS,
            f"more-{i}",
            loss=1.6,
            choices={"rope": "ntk", **words, f"callbacks.checkpoints.option_number_{i}": "b"},
        )
    shown = format_comparison(compared(), terminal=False)
    assert max(map(len, shown.splitlines())) <= WIDTH
    assert re.search(r"^row 1  \S+=\S+ \S+=\S+", shown, re.MULTILINE)
    assert re.search(r"^row +n ", shown, re.MULTILINE)
    assert re.search(r"^not separated: row \d+ leads", shown, re.MULTILINE)


def test_a_narrow_terminal_gets_several_tables(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    family("standard", [1.5, 1.51])
    family("yarn", [1.4, 1.41])
    shown = format_comparison(compared(), terminal=True)
    assert shown.count("standard") >= 3
    assert "…" not in shown
    assert max(len(line) for line in shown.splitlines() if "\x1b" not in line and "yarn" not in line[:3]) < 140
