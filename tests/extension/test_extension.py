"""A package of someone else's, and a file in ./conf, are parts like ours."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from aptlab.cli import main
from aptlab.config import build, check, compose
from aptlab.errors import ConfigError
from aptlab.testing import RopeContract
from tests.commands.small_run import train, words

SOURCE = Path(__file__).parent / "aptlab_half" / "src"
ENTRY = "[aptlab.conf]\naptlab_half = aptlab_half\n"


def install(site: Path) -> Path:
    """What `pip install -e` leaves in a site folder, made by hand: no network, no build."""
    info = site / "aptlab_half-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: aptlab-half\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text(ENTRY)
    (site / "aptlab_half").symlink_to(SOURCE / "aptlab_half")
    return site


@pytest.fixture
def installed(tmp_path, monkeypatch) -> Path:
    site = install(tmp_path / "site")
    monkeypatch.syspath_prepend(str(site))
    return site


def mine(name: str = "mine", target: str = "aptlab.nn.positions.rope.Standard") -> None:
    Path("conf/rope").mkdir(parents=True, exist_ok=True)
    Path(f"conf/rope/{name}.yaml").write_text(f"# My own rule.\n_target_: {target}\nbase: 500.0\n")


def test_the_entry_point_is_the_one_of_the_package():
    assert 'entry-points."aptlab.conf"]\naptlab_half = "aptlab_half"' in (SOURCE.parent / "pyproject.toml").read_text()


def test_it_is_listed_completed_and_explained(installed, capsys):
    assert main(["ls", "rope"]) == 0
    line = r"^half +Every frequency divided by two, from another package\.  \(extension aptlab_half\)$"
    assert re.search(line, capsys.readouterr().out, re.MULTILINE)
    assert main(["__complete", "train", "rope=ha"]) == 0
    assert capsys.readouterr().out.split() == ["rope=half"]
    assert main(["__complete", "train", "rope=half", "rope.b"]) == 0
    assert capsys.readouterr().out.split() == ["rope.base="]
    assert main(["show", "rope=half"]) == 0
    assert re.search(r"^  base +float > 0, default 10000\.0$", capsys.readouterr().out, re.MULTILINE)


def test_it_is_checked_without_torch(installed):
    with pytest.raises(ConfigError, match=r"rope\.base: must be a finite number > 0, got -1"):
        check(compose("train", ["rope=half", "rope.base=-1"]))
    code = "import sys; from aptlab.config import check, compose; check(compose('train', ['rope=half']))"
    code += "; print('torch' in sys.modules)"
    assert in_process([sys.executable, "-c", code], installed).split() == ["False"]


def test_it_trains_two_steps(installed):
    made = train("rope=half")
    assert (made.choices["rope"], made.result.steps) == ("half", 2)
    assert made.config["rope"]["_target_"] == "aptlab_half.rope.Half"


def test_without_the_package_it_does_not_exist():
    with pytest.raises(ConfigError, match="rope=half: no such option"):
        compose("train", ["rope=half"])


class TestHalf(RopeContract):
    """The contract test that a third party ships."""

    config = {"_target_": "aptlab_half.rope.Half", "base": 10_000.0}

    @pytest.fixture(autouse=True)
    def _rule(self, installed):
        self.rule = build(self.config)


def test_a_file_in_conf_trains(capsys):
    mine()
    made = train("rope=mine")
    assert (made.choices["rope"], made.config["rope"]["base"]) == ("mine", 500.0)
    assert "rope=mine" in capsys.readouterr().out


def test_a_name_that_is_taken_is_an_error(installed):
    mine("half")
    with pytest.raises(ConfigError, match=r"rope=half is defined twice, by extension aptlab_half \(.*\) and \./conf"):
        compose("train", [])


def test_two_shipped_names_are_an_error_too():
    mine("yarn")
    with pytest.raises(
        ConfigError, match=r"rope=yarn is defined twice, by shipped .* rename the second, for example my_"
    ):
        compose("train", ["rope=standard"])


def test_a_package_without_conf_is_named(tmp_path, monkeypatch):
    site = install(tmp_path / "site")
    (site / "aptlab_half").unlink()
    (site / "aptlab_half").mkdir()
    (site / "aptlab_half" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.delitem(sys.modules, "aptlab_half", raising=False)
    with pytest.raises(
        ConfigError, match=r"the extension aptlab_half \(aptlab.conf = aptlab_half\) has no conf folder"
    ):
        compose("train", [])


def test_a_class_of_a_package_that_is_not_installed_is_not_trusted():
    mine(target="aptlab_half.rope.Half")
    with pytest.raises(ConfigError, match=r"_target_ aptlab_half\.rope\.Half is not trusted"):
        check(compose("train", ["rope=mine"]))


@pytest.mark.slow
def test_in_processes_of_its_own(tmp_path):
    site = install(tmp_path / "site")
    aptlab = [sys.executable, "-m", "aptlab"]
    assert "half" in in_process([*aptlab, "ls", "rope"], site)
    assert in_process([*aptlab, "__complete", "train", "rope=ha"], site).split() == ["rope=half"]
    assert "rope=half" in in_process([*aptlab, "train", *words("rope=half")], site)


def in_process(command: list[str], site: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(site)}
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment, timeout=300).stdout
