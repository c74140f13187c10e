"""A component that is none of what its group asks is refused before anything is imported or built."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from aptlab.config import check, compose
from aptlab.config.bases import find_contract_problem, read_group_bases
from aptlab.config.search_path import read_option_index
from aptlab.errors import ConfigError

BASES = read_group_bases()
ROPE = "aptlab.nn.positions.rope.Rope"


def test_every_group_of_the_table_is_one_and_every_base_is_there():
    from aptlab.config.static.classes import find_class

    groups = read_option_index().groups
    nodes = {"search", "skeleton"}  # of a primary file: conf/search.yaml and conf/generate.yaml hold them whole
    assert {key.partition(".")[0] for key in BASES} - nodes <= groups.keys()
    assert all(find_class(base) is not None for base in BASES.values())
    assert "groups" not in read_option_index().primaries


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            "rope._target_=aptlab.nn.shape.Shape ~rope.base ~rope.layout "
            "rope.dim=4 rope.depth=1 rope.heads=1 rope.hidden=4",
            f"rope: aptlab.nn.shape.Shape is no whole {ROPE}, which every option of rope must be; "
            "derive from it and write inv_freq",
        ),
        (
            "schedule._target_=aptlab.nn.norm.RMSNorm ~schedule.warmup ~schedule.final +schedule.dim=4",
            "schedule: aptlab.nn.norm.RMSNorm is no whole aptlab.tasks.base.Schedule, which every option of "
            "schedule must be; write factor",
        ),
        (
            "+callbacks.mine._target_=aptlab.nn.norm.RMSNorm +callbacks.mine.dim=4",
            "callbacks.mine: aptlab.nn.norm.RMSNorm is no whole lightning.pytorch.Callback, which every option of "
            "callbacks must be; derive from it",
        ),
    ],
)
def test_another_kind_of_component_is_refused(overrides, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        check(compose("train", overrides.split()))


@pytest.fixture
def package(tmp_path: Path, monkeypatch):
    """A package with one module of rules, which fails when it is imported."""
    text = """
import abc
from torch import nn
from aptlab.nn.positions.rope import Rope, Standard
from aptlab.nn.attention import Attention
raise RuntimeError("imported")
class Whole(Rope):
    def inv_freq(self, head_dim): ...
class Open(Rope):
    note = "x"
class Below(Open):
    inv_freq = None
class Asks(Rope, abc.ABC):
    def inv_freq(self, head_dim): ...
    @abc.abstractmethod
    def more(self): ...
class Asked(Asks):
    pass
class Ready(Standard):
    pass
class Computed(make_base()):
    pass
class Mean(nn.Module):
    def forward(self, x, context): ...
class Half(Attention):
    @property
    def max_keys(self): ...
"""
    (tmp_path / "base_rules").mkdir()
    (tmp_path / "base_rules" / "__init__.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "base_rules"


@pytest.mark.parametrize(
    ("group", "name", "problem"),
    [
        ("rope", "Whole", None),
        ("rope", "Open", "write inv_freq"),
        ("rope", "Below", None),
        ("rope", "Asked", "write more"),
        ("rope", "Ready", None),
        ("rope", "Computed", None),  # source does not tell its base; the constructor has the last word
        ("rope", "Mean", "derive from it and write inv_freq"),
        ("attention", "Mean", "derive from it and write count_flops, max_keys"),
        ("attention", "Half", "write count_flops, forward"),
        ("unknown", "Mean", None),
    ],
)
def test_classes_of_others_are_judged_by_their_source(package, group, name, problem):
    found = find_contract_problem(group, f"{package}.{name}", BASES)
    if problem is None:
        assert found is None
    else:
        assert found is not None
        assert found.endswith(f"every option of {group} must be; {problem}")


def test_judging_imports_nothing():
    code = (
        "import sys; from aptlab.config.bases import *; bases = read_group_bases();"
        "find_contract_problem('callbacks.x', 'aptlab.callbacks.stop.GracefulStop', bases);"
        "find_contract_problem('data', 'aptlab.data.module.TextData', bases);"
        "print(sorted({'torch', 'lightning', 'hydra', 'aptlab.data'} & set(sys.modules)))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_a_group_of_another_place_has_its_own_base(tmp_path):
    folder = Path("conf")
    folder.mkdir()
    (folder / "groups.yaml").write_text(f"mine: {ROPE}\n")
    assert read_group_bases()["mine"] == ROPE
    (folder / "groups.yaml").write_text("rope: aptlab.nn.shape.Shape\n")
    with pytest.raises(
        ConfigError, match=r"groups\.yaml: the options of rope are .*Rope, not aptlab\.nn\.shape\.Shape"
    ):
        read_group_bases()
