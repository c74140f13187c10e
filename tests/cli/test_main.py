from __future__ import annotations

import os
import subprocess
import sys

import pytest

import aptlab
from aptlab.cli import main
from aptlab.cli.table import COMMANDS
from aptlab.errors import AptlabError, TrainingError

LIGHT = (
    "import sys; from aptlab.cli import main; code = main(sys.argv[1:]);"
    "print(sorted({'torch', 'lightning', 'numpy', 'wandb', 'rich', 'matplotlib'} & set(sys.modules)));"
    "sys.exit(code)"
)


def run(*args: str, **extra: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "aptlab", *args],
        capture_output=True,
        text=True,
        env={**os.environ, **extra},
        check=False,
    )


@pytest.mark.parametrize("args", [[], ["--help"], ["-h"], ["help"]])
def test_help_is_short_and_names_every_command(args, capsys):
    assert main(args) == 0
    shown = capsys.readouterr().out
    assert len(shown.splitlines()) <= 18
    assert all(f"  {name} " in shown for name in COMMANDS)


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"aptlab {aptlab.__version__}\n"


def test_an_unknown_command_suggests_one(capsys):
    assert main(["trian"]) == 2
    captured = capsys.readouterr()
    assert captured.err == "trian: no such command; did you mean train?\n"
    assert captured.out == ""


def test_help_of_train_lists_groups_and_values_with_their_comments(capsys):
    assert main(["train", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "  rope=standard         Rotary positions as published" in shown
    assert "  seed=0                of weights, dropout and sample order" in shown
    assert "  validate=default      Every hundred optimizer steps, and at the end" in shown
    assert "recipe=null" in shown


@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if not command.config])
def test_help_of_a_plain_command_imports_it_not(name, capsys):
    module = COMMANDS[name].target.partition(":")[0]
    before = module in sys.modules
    assert main([name, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"aptlab {name}: ")
    assert (module in sys.modules) == before


def test_cfg_prints_the_resolved_config_and_runs_nothing(capsys, tmp_path):
    import yaml

    assert main(["train", "--cfg", "rope=yarn", "rope.factor=8"]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["model"]["positions"]["rope"]["factor"] == 8
    assert printed["rope"]["original_len"] == printed["context"]
    assert list(tmp_path.iterdir()) == []


def test_cfg_hides_secrets(capsys):
    assert main(["train", "--cfg", "logger.api_key=abcdefgh"]) == 0
    shown = capsys.readouterr().out
    assert "abcdefgh" not in shown
    assert "api_key: '***'" in shown


def test_an_error_hides_secrets(capsys):
    assert main(["train", "logger.api_key=[abcdefgh"]) == 2
    assert "abcdefgh" not in capsys.readouterr().err


def test_an_unknown_flag_is_refused(capsys):
    assert main(["train", "--fast"]) == 2
    assert capsys.readouterr().err == "aptlab train: there is no flag --fast; allowed: --help, --cfg, -m, key=value\n"


@pytest.mark.parametrize(("raised", "code"), [(AptlabError("told"), 2), (TrainingError("told"), 1)])
def test_an_error_of_the_user_is_one_message_and_its_exit_code(raised, code, capsys, monkeypatch):
    import aptlab.commands.ls

    def fail(args):
        raise raised

    monkeypatch.setattr(aptlab.commands.ls, "run", fail)
    assert main(["ls"]) == code
    assert capsys.readouterr().err == "told\n"
    monkeypatch.setenv("APTLAB_DEBUG", "1")
    with pytest.raises(AptlabError):
        main(["ls"])


def test_an_interrupt_exits_130(monkeypatch):
    import aptlab.commands.ls

    def interrupt(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(aptlab.commands.ls, "run", interrupt)
    assert main(["ls"]) == 130


@pytest.mark.parametrize("flag", ["-m", "--multirun"])
def test_a_sweep_gets_the_other_arguments(flag, monkeypatch):
    import aptlab.commands.sweep

    seen = []
    monkeypatch.setattr(aptlab.commands.sweep, "run", lambda args: seen.append(args), raising=False)
    assert main(["train", "rope=yarn,ntk", flag, "seed=1"]) == 0
    assert seen == [["rope=yarn,ntk", "seed=1"]]


def test_the_command_line_of_the_process_stays_whole():
    code = "import sys; from aptlab.cli import main; main(); print(sys.argv[1:])"
    done = subprocess.run([sys.executable, "-c", code, "ls", "size"], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "['ls', 'size']"


def test_a_reader_that_goes_away_is_no_error():
    command = f"{sys.executable} -m aptlab train --help | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[0].startswith("aptlab train")
    assert done.stdout.splitlines()[1] in ("0", "141")
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (["--help"], 0),
        (["train", "--help"], 0),
        (["train", "sead=1"], 2),
        (["train", "size.heads=5"], 2),
        (["check", "rope=yarn"], 0),
        (["train", "--cfg"], 0),
        (["ls", "rope"], 0),
        (["show", "trainer=default"], 0),
        (["__complete", "train", "rope.b"], 0),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_trains_nothing_loads_no_torch(args, code):
    done = subprocess.run([sys.executable, "-c", LIGHT, *args], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    assert "Traceback" not in done.stderr
