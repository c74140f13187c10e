"""What the README and the guide say can be typed."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from benchmarks.tables import read_group_line, render_tables, replace_block

from aptlab.cli import main
from aptlab.cli.table import COMMANDS
from aptlab.commands.plot import plan_plot as read_plot
from aptlab.commands.sweep import read_sweep_request
from aptlab.config import check, compose
from aptlab.config.search_path import ConfigRoot, Option, find_conf_dir
from aptlab.errors import ConfigError

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
GUIDE = (ROOT / "docs" / "long-context.md").read_text()
FENCES = re.findall(r"^```(\w*)\n(.*?)^```$", README + GUIDE, re.MULTILINE | re.DOTALL)
BLOCKS = [body for language, body in FENCES if not language]
MADE = ("my_yarn", "longrope_1024")  # options that commands before make


def commands() -> list[str]:
    """Every `aptlab …`, from blocks (what follows three spaces is an explanation) and from running text."""
    lines = [line for block in BLOCKS for line in block.splitlines()]
    lines = [re.split(r"\s{3,}|\s+#\s|\s*>>\s", line)[0] for line in lines]
    lines = [re.sub(r"^(torchrun .* -m|pip install \S+ &&) aptlab", "aptlab", line) for line in lines]
    spoken = [re.split(r"\s*>>\s", text)[0] for text in re.findall(r"`(aptlab [^`]+)`", README + GUIDE)]
    return list(dict.fromkeys(line for line in [*lines, *spoken] if line.startswith("aptlab ")))


def test_there_are_commands_to_test():
    words = {shlex.split(line)[1] for line in commands()}
    assert {
        "train",
        "eval",
        "generate",
        "search",
        "import",
        "export",
        "compare",
        "ls",
        "show",
        "check",
        "cp",
        "completion",
    } <= words
    assert "aptlab train" in commands()


@pytest.mark.parametrize("line", [line for line in commands() if not any(name in line for name in MADE)])
def test_a_command_line_is_accepted(line, capsys):
    _, name, *args = shlex.split(line)
    assert name in COMMANDS
    if "-m" in args:
        assert read_sweep_request(args).plan is not None
    elif name == "check" and any(arg.endswith("=-1") for arg in args):
        assert main([name, *args]) == 2
        assert "-1" in capsys.readouterr().err
    elif name == "plot":
        assert read_plot(args)
    elif COMMANDS[name].config:
        check(compose(name, args))
    elif name in ("ls", "show", "check", "completion"):
        assert main([name, *args]) == 0
        assert capsys.readouterr().out


def test_a_copied_option_can_be_used():
    copy = next(shlex.split(line) for line in commands() if line.startswith("aptlab cp "))
    assert main(copy[1:]) == 0
    use = next(shlex.split(line) for line in commands() if line.startswith("aptlab train rope=my_yarn"))
    assert compose(use[1], use[2:]).choices["rope"] == "my_yarn"


def test_an_unknown_word_would_be_noticed():
    with pytest.raises(ConfigError, match="rope=yan: no such option"):
        compose("train", ["rope=yan"])


def test_the_table_lists_the_options_that_there_are():
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| .* \|$", README, re.MULTILINE)
    listed = {group: set(re.findall(r"`([^`]+)`", options)) for group, options in rows}
    there = {
        folder.name: {path.stem for path in folder.glob("*.yaml")}
        for folder in find_conf_dir().iterdir()
        if folder.is_dir() and folder.name != "recipe"
    }
    assert listed == there


@pytest.mark.parametrize("path", list(render_tables()), ids=lambda path: path.name)
def test_the_generated_tables_are_up_to_date(path):
    assert path.read_text() == render_tables()[path], "run `python benchmarks/readme.py --tables`"


def test_a_file_without_its_markers_is_noticed():
    with pytest.raises(SystemExit, match="<!-- rows: begin --> and <!-- rows: end --> must stand once in the file"):
        replace_block("text", "rows", "table")


def test_a_group_without_a_line_is_noticed(tmp_path):
    option = Option("rope", "slow", tmp_path / "slow.yaml", ConfigRoot("shipped", tmp_path))
    with pytest.raises(
        SystemExit, match=r"README\.md is missing; write one line in it that says what the group is for"
    ):
        read_group_line([option])


def test_continuous_integration_runs_the_second_command():
    second = BLOCKS[0].splitlines()[1]
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    sed = next(line for line in lines if line.startswith('test_command="$(sed '))
    done = subprocess.run(["bash", "-c", f'{sed}; echo "$test_command"'], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == second
    assert second.startswith("pip install '.[dev]' && pytest")


HOUSE = (ROOT / "docs" / "architecture.md").read_text()
RULES = (ROOT / "CONTRIBUTING.md").read_text()


@pytest.mark.parametrize("text", [HOUSE, RULES], ids=["architecture", "contributing"])
def test_files_that_are_named_are_there(text):
    named = re.findall(r"`((?:src|conf|tests|benchmarks|docs)/[\w./]+)`", text)
    assert named
    assert [path for path in named if not (ROOT / path).exists() and path != "conf/x.yaml"] == []


def test_links_lead_somewhere():
    docs = ROOT / "docs"
    for text, folder in ((README, ROOT), (GUIDE, docs), (HOUSE, docs), (RULES, ROOT)):
        links = [link for link in re.findall(r"(?<!!)\[[^\]]+\]\(([^)#]+)\)", text) if "://" not in link]
        assert links
        assert [link for link in links if not (folder / link).exists()] == []
