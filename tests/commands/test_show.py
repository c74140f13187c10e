"""`aptlab show ckpt=…`: what a checkpoint is, without torch; and what `show` and `ls` answer to a folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from aptlab.commands import ls, show
from aptlab.errors import CheckpointError, ConfigError
from aptlab.runs import RunFolder
from tests.commands.trained import make_run, write_texts
from tests.report.making import make_run as make_result


@pytest.fixture
def ckpt(tmp_path) -> Path:
    return make_run(Path("outputs"), texts=write_texts(tmp_path / "texts.jsonl"), extra=("optim.lr=0.01",))


def shown(capsys, *args: str) -> list[str]:
    assert show.run(list(args)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 20
    return lines


def test_a_checkpoint_is_shown_with_file_run_numbers_and_what_differs(ckpt, capsys):
    lines = shown(capsys, "ckpt=last")
    heads = [line.split()[0] for line in lines if not line.startswith(" ")]
    assert heads == ["ckpt", "state", "step", "parts", "changes"]
    assert lines[0] == f"ckpt     {ckpt}"
    assert f"whole: {ckpt.stat().st_size:,} bytes with the sha256 of its manifest" in lines[1]
    assert lines[2].startswith("step     7, saved ")
    assert lines[2].endswith(f"of the run {ckpt.parent.parent}")
    assert "size=debug  rope=standard" in lines[3]
    assert "  optim.lr: 0.003 -> 0.01" in lines
    assert "  context: 256 -> 16" in lines
    assert lines == shown(capsys, f"ckpt={ckpt.parent.parent}") == shown(capsys, "ckpt=last", "paths.root=outputs")


def test_the_result_of_its_run_is_there_and_long_lists_are_cut(ckpt, capsys):
    with RunFolder.create(run_dir=ckpt.parent.parent) as folder:
        folder.write_result({"job": "train", "seed": 3, "steps": 7, "metrics": {"val/loss": 2.5}})
    lines = shown(capsys, f"ckpt={ckpt}")
    assert "result   finished at step 7: val/loss 2.5000" in lines
    many = make_run(
        Path("many"), texts=Path("texts.jsonl"), extra=tuple(f"optim.{key}=0.5" for key in ("beta1", "beta2", "lr"))
    )
    cut = shown(capsys, f"ckpt={many}")
    assert len(cut) == 20 or not cut[-1].startswith("  …")


def test_a_damaged_one_is_told_with_the_one_beside_it(ckpt, capsys):
    ckpt.write_bytes(ckpt.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"is truncated: .* bytes of .*; there is no valid one beside it"):
        show.run([f"ckpt={ckpt}"])


def test_a_folder_is_answered_with_the_command_that_shows_it(ckpt):
    run = ckpt.parent.parent
    says = rf"^{run} is a folder; aptlab show ckpt={run} shows its newest checkpoint, aptlab compare {run} its runs$"
    for command in (show, ls):
        with pytest.raises(ConfigError, match=says):
            command.run([str(run)])
        with pytest.raises(ConfigError, match=rf"^{ckpt} is a checkpoint; aptlab show ckpt={ckpt} says what it is$"):
            command.run([str(ckpt)])
    with pytest.raises(ConfigError, match=r"there is no config group nothing"):
        ls.run(["nothing"])


def test_no_torch_is_imported(ckpt):
    code = "import sys; from aptlab.commands import show; show.run(['ckpt=last']); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_compare_calls_an_import_what_it_is(ckpt, capsys):
    import dataclasses

    from aptlab.checkpoint import read_manifest
    from aptlab.checkpoint.manifest import write_manifest
    from aptlab.commands import compare

    run, first = ckpt.parent.parent, ckpt.with_name("step-00000000.ckpt")
    (run / "config.yaml").write_text("{}")
    manifest = read_manifest(ckpt)
    ckpt.rename(first)
    ckpt.with_suffix(".json").unlink()
    write_manifest(first, dataclasses.replace(manifest, step=0, run_dir=""))
    make_result(Path("outputs"), "one")
    (make_result(Path("outputs"), "cut") / "result.json").unlink()
    assert compare.run(["outputs"]) == 0
    told = capsys.readouterr().out
    assert "left out, not finished: 1 of 3 (cut)" in told
    assert f"left out, imported: 1 of 3 ({run.name})" in told
    assert any(line.startswith("step     0: imported weights, no training") for line in shown(capsys, f"ckpt={first}"))
