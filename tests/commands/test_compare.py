"""`aptlab compare`: what it writes and prints, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from aptlab.commands.compare import parse_compare_request, run
from aptlab.errors import AptlabError, ConfigError
from tests.report.making import make_run

RUNS = Path("runs")


def family(rope: str, losses: list[float | None], **changes) -> None:
    for seed, loss in enumerate(losses):
        make_run(RUNS, f"{rope}-{seed}", seed=seed, loss=loss, choices={"rope": rope}, **changes)


def test_the_command_writes_its_files_and_lists_what_is_not_finished(capsys):
    family("standard", [1.5, 1.51])
    family("yarn", [1.4, 1.41])
    (make_run(RUNS, "cut") / "result.json").unlink()
    assert run([str(RUNS)]) == 0
    out = capsys.readouterr().out
    assert "left out, not finished: 1 of 5 (cut)" in out
    lines = (RUNS / "table.md").read_text().splitlines()
    assert lines[0].startswith("| rope | n | val/loss | val/ppl | val/bpb | ppl@1x | ppl@2x | ppl@4x | ppl@8x |")
    assert lines[1].startswith("| :-- | --: |")
    assert lines[2].startswith("| standard | n=2 | 1.5050 ± 0.0635 |")
    assert (RUNS / "figure.png").read_bytes()[:4] == b"\x89PNG"
    assert (RUNS / "table.txt").read_text().splitlines() == out.splitlines()[:-2]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "compare needs at least one folder of runs, for example: aptlab compare outputs/train"),
        (["x", "metrics=val/loss"], "metrics=val/loss: compare has no option metrics; did you mean metric?"),
    ],
)
def test_a_wrong_command_line_is_refused(args, message):
    with pytest.raises(ConfigError) as caught:
        parse_compare_request(args)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("metric=val/los", r"metric=val/los: no such number in the results; did you mean val/loss\?"),
        ("by=ropes", r"by=ropes: no run has this setting; did you mean rope\?"),
        ("baseline=rope=ntk", r"baseline=rope=ntk: no row has this"),
    ],
)
def test_a_wrong_option_is_refused(option, message):
    family("standard", [1.5])
    family("yarn", [1.5])
    with pytest.raises(AptlabError, match=message):
        run([str(RUNS), option])


def test_folders_without_a_finished_run_are_refused():
    (make_run(RUNS, "cut") / "result.json").unlink()
    with pytest.raises(AptlabError, match=r"no finished run .*\nleft out, not finished: 1 of 1 \(cut\)"):
        run([str(RUNS)])
    with pytest.raises(AptlabError, match="nowhere: no such folder"):
        run(["nowhere"])


def test_a_folder_may_have_an_equals_sign_in_its_name():
    Path("rope=yarn").mkdir()
    assert parse_compare_request(["rope=yarn", "a/b=c", "by=rope,smooth"]).folders == ("rope=yarn", "a/b=c")
    assert parse_compare_request(["rope=yarn", "by=rope,smooth"]).by == ("rope", "smooth")
