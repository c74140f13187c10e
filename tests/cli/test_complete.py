from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from aptlab.cli import main
from aptlab.cli.complete import list_completions
from aptlab.commands.plot import NAMES
from aptlab.config import read_root_keys
from aptlab.config.files import read_config_file
from aptlab.config.search_path import read_option_index


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["tr"], ["train"]),
        (["comp"], ["compare", "completion"]),
        (["--v"], ["--version"]),
        (["completion", ""], ["bash", "fish", "zsh"]),
        (["train", "--"], ["--cfg", "--help", "--multirun"]),
        (["train", "ro"], ["rope="]),
        (["train", "rope"], ["rope.", "rope="]),
        (["train", "rope=lla"], ["rope=llama3"]),
        (["train", "+rope=lla"], ["+rope=llama3"]),
        (["train", "rope=yarn,lla"], ["rope=yarn,llama3"]),
        (["train", "rope=yarn", "rope.fac"], ["rope.factor="]),
        (["train", "rope.fac"], []),
        (["train", "rope.b"], ["rope.base="]),
        (["train", "rope=yarn", "rope.ramp="], ["rope.ramp=index", "rope.ramp=ratio"]),
        (["train", "trainer.max_t"], ["trainer.max_time="]),
        (["train", "data.ro"], ["data.rows."]),
        (["train", "source.p"], ["source.parts="]),
        (["train", "compile="], ["compile=false", "compile=true"]),
        (["train", "precision=bf"], ["precision=bf16-mixed", "precision=bf16-true"]),
        (["train", "job="], []),
        (["search", "tar"], ["target="]),
        (["search", "precision=bf"], ["precision=bf16-mixed", "precision=bf16-true"]),
        (["search", "workers="], ["workers=null"]),
        (["search", "ckpt=be"], ["ckpt=best"]),
        (["plot", "he"], ["head_dim=", "heads="]),
        (["plot", "what=m"], ["what=memory"]),
        (["plot", "what=decay,m"], ["what=decay,memory"]),
        (["plot", "length="], ["length=null"]),
        (["check", "ev"], ["eval", "evals="]),
        (["check", "rope=lla"], ["rope=llama3"]),
        (["check", "eval", "mult"], ["multiples="]),
        (["ls", "ro"], ["rope"]),
        (["show", "rope=lla"], ["rope=llama3"]),
        (["cp", "rope/lla"], ["rope/llama3"]),
        (["nope", ""], []),
        (["train", "nope.x="], []),
        (["train", "rope=yarn", "rope._target_.x"], []),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else None,
)
def test_candidates(words, found):
    assert list_completions(words) == found


@pytest.mark.parametrize("primary", sorted(read_option_index().primaries))
def test_every_root_key_is_known(primary):
    """No field of a Request without a key, no key without a field but groups and parts with a class of their own."""
    values = read_config_file(read_option_index().primaries[primary].path)
    parts = {key for key, value in values.items() if isinstance(value, dict) and "_target_" in value}
    known = read_root_keys(primary).keys()
    assert known == values.keys() - {"defaults"} - read_option_index().groups.keys() - (parts - known)


def test_analyses_are_those_of_plot():
    assert list_completions(["plot", "what="]) == sorted(f"what={name}" for name in ("all", *NAMES))


def test_options_of_the_current_folder_are_among_them():
    Path("conf/rope").mkdir(parents=True)
    Path("conf/rope/mine.yaml").write_text("_target_: aptlab.nn.positions.rope.YaRN\nbase: 1.0\n")
    assert list_completions(["train", "rope=min"]) == ["rope=mine"]
    assert "rope.factor=" in list_completions(["train", "rope=mine", "rope."])


def test_files_follow_a_checkpoint_key():
    Path("runs/one").mkdir(parents=True)
    Path("runs/x.ckpt").touch()
    assert list_completions(["train", "ckpt=ru"]) == ["ckpt=runs/"]
    assert list_completions(["train", "ckpt=runs/"]) == ["ckpt=runs/one/", "ckpt=runs/x.ckpt"]
    assert list_completions(["train", "ckpt=la"]) == ["ckpt=last"]
    assert list_completions(["compare", "ru"]) == ["runs/"]


def test_a_broken_folder_gives_nothing_and_no_error(capsys):
    Path("conf/rope").mkdir(parents=True)
    Path("conf/rope/yarn.yaml").write_text("base: [\n")
    assert main(["__complete", "train", "rope="]) == 0
    assert capsys.readouterr().out.strip() == ""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_calls_the_hidden_command(shell, capsys):
    assert main(["completion", shell]) == 0
    assert "aptlab __complete" in capsys.readouterr().out


def test_an_unknown_shell_is_refused(capsys):
    assert main(["completion", "tcsh"]) == 2
    assert "aptlab completion tcsh: name a shell" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("line", "replies"),
    [
        ("aptlab tr", "train"),
        ("aptlab train rope=lla", "llama3"),
        ("aptlab train rope=yarn rope.fac", "rope.factor="),
        ("aptlab train rope=yarn rope.ramp=", "index ratio"),
        ("aptlab ls siz", "size"),
    ],
)
def test_bash_completes_with_the_script(line, replies, tmp_path, capsys):
    main(["completion", "bash"])
    script = tmp_path / "completion.bash"
    command = f'aptlab() {{ "{sys.executable}" -m aptlab "$@"; }}\n'
    words = 'COMP_LINE="$1" COMP_POINT=${#1}; _aptlab; echo "${COMPREPLY[*]}"\n'
    script.write_text(command + capsys.readouterr().out + words)
    done = subprocess.run(["bash", str(script), line], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == replies
