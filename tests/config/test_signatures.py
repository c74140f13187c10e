from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from aptlab.config.static.signatures import is_rule, is_torch_free, read_signature
from aptlab.config.static.types import find_annotation_problem
from aptlab.errors import ConfigError


@pytest.fixture
def package(tmp_path: Path, monkeypatch):
    """Write a package of the given files, under a name of its own; it fails when it is imported."""

    def make(name: str, **files: str) -> str:
        for file, text in files.items():
            path = tmp_path / name / f"{file}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"{text}\nraise RuntimeError('imported')\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        return name

    return make


def names(target: str) -> list[str]:
    known = read_signature(target)
    assert known is not None
    return list(known.parameters)


def test_a_dataclass_gives_its_fields():
    known = read_signature("aptlab.nn.positions.rope.YaRN")
    assert known is not None
    own = ["factor", "original_len", "beta_fast", "beta_slow", "ramp", "truncate"]
    assert list(known.parameters)[:3] == ["base", "layout", "temperature_on"]
    assert set(own) <= set(known.parameters)
    assert known.parameters["factor"].type_text == "AtLeastOne | None"
    assert not known.open
    assert known.doc.startswith("Keep fast pairs")


def test_a_required_field_is_required():
    known = read_signature("aptlab.nn.shape.Shape")
    assert known is not None
    required = [name for name, parameter in known.parameters.items() if parameter.required]
    assert required == ["dim", "depth", "heads", "hidden"]


@pytest.mark.parametrize(
    ("target", "first", "count"),
    [
        ("lightning.Trainer", ["accelerator", "strategy", "devices"], 41),
        ("lightning.pytorch.callbacks.ModelCheckpoint", ["dirpath", "filename", "monitor"], 15),
        ("torch.optim.AdamW", ["params", "lr", "betas"], 11),
        ("torch.nn.Linear", ["in_features", "out_features", "bias"], 5),
        ("torchmetrics.text.Perplexity", ["ignore_index"], 1),
        ("aptlab.models.Decoder", ["shape", "vocab", "block"], 6),
    ],
)
def test_re_exports_are_followed_to_the_constructor(target, first, count):
    assert names(target)[: len(first)] == first
    assert len(names(target)) >= count - 2


def test_static_parameters_are_those_of_the_real_classes():
    import inspect

    import lightning
    import torch

    for target, real in (("lightning.Trainer", lightning.Trainer), ("torch.optim.AdamW", torch.optim.AdamW)):
        assert names(target) == [name for name in inspect.signature(real).parameters if name != "self"]


def test_inheritance_class_variables_and_fields(package):
    text = """
from dataclasses import dataclass, field
from typing import ClassVar
from .base import Base
@dataclass(frozen=True, kw_only=True)
class Child(Base):
    kind: ClassVar[str] = "x"
    own: int
    items: list[int] = field(default_factory=list)
    hidden: int = field(init=False, default=0)
"""
    base = "import dataclasses\n@dataclasses.dataclass\nclass Base:\n    inherited: float = 1.0"
    name = package("sig_inherit", __init__="from sig_inherit.child import Child as Alias", child=text, base=base)
    known = read_signature(f"{name}.Alias")
    assert known is not None
    assert {key: item.required for key, item in known.parameters.items()} == {
        "inherited": False,
        "own": True,
        "items": False,
    }


@pytest.mark.parametrize(
    "init",
    [
        "_LAZY = {'Thing': '.inner'}\ndef __getattr__(name): ...",
        "_LAZY = {'Thing': ('sig_lazy{n}.inner', 'Thing')}\ndef __getattr__(name): ...",
        "_LAZY = {'Thing': 'sig_lazy{n}.inner:Thing'}\ndef __getattr__(name): ...",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .inner import Thing",
        "try:\n    from .inner import Thing\nexcept ImportError:\n    pass",
        "from .inner import *",
        "from . import inner\nThing = inner.Thing",
    ],
)
def test_names_of_a_lazy_package_are_found(package, init):
    number = abs(hash(init))
    name = package(
        f"sig_lazy{number}",
        __init__=init.replace("{n}", str(number)),
        inner="class Thing:\n    def __init__(self, size: int, *, rate=0.1): ...",
    )
    assert names(f"{name}.Thing") == ["size", "rate"]


def test_open_ends_are_seen(package):
    text = (
        "class A:\n    def __init__(self, a, **rest): ...\nfrom nowhere import Base\nclass B(Base): ...\nclass C: ..."
    )
    name = package("sig_open", __init__=text)
    a, b, c = (read_signature(f"{name}.{letter}") for letter in "ABC")
    assert a is not None
    assert a.open
    assert b is not None
    assert b.open
    assert c is not None
    assert not c.open


def test_a_cycle_of_re_exports_ends(package):
    name = package(
        "sig_cycle", __init__="from sig_cycle.a import X", a="from sig_cycle.b import X", b="from sig_cycle.a import X"
    )
    assert read_signature(f"{name}.X") is None


def test_names_that_are_not_there_are_told():
    with pytest.raises(ConfigError, match="there is no package nowhere_at_all; install it"):
        read_signature("nowhere_at_all.X")
    with pytest.raises(ConfigError, match=r"aptlab\.nn\.positions\.rope has no Yarn; did you mean YaRN\?"):
        read_signature("aptlab.nn.positions.rope.Yarn")
    with pytest.raises(ConfigError, match=r"aptlab\.nn\.positions\.rope is a module; name a class in it"):
        read_signature("aptlab.nn.positions.rope")


def test_rules_are_frozen_dataclasses_without_torch():
    assert is_rule("aptlab.nn.positions.rope.YaRN")
    assert is_rule("aptlab.nn.shape.Shape")
    assert not is_rule("aptlab.nn.attention.FullAttention")
    assert not is_rule("lightning.Trainer")
    assert not is_torch_free("aptlab.nn.positions.rotary")


def test_reading_signatures_imports_nothing():
    code = (
        "import sys; from aptlab.config.static.signatures import read_signature;"
        "[read_signature(t) for t in ('lightning.Trainer', 'torch.optim.AdamW', 'aptlab.tasks.LanguageTask')];"
        "print(sorted({'torch', 'lightning', 'hydra', 'aptlab.tasks'} & set(sys.modules)))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


@pytest.mark.parametrize(
    ("value", "annotation", "problem"),
    [
        (1, "float", None),
        (1.0, "int", "expects int, got 1.0; write 1"),
        (True, "int", "expects int, got True"),
        (1, "bool", "expects bool, got 1"),
        (None, "int | None", None),
        (None, "int", "expects int, got None"),
        (3, "Optional[str]", "expects str or null, got 3; quote it: '\"3\"'"),
        (-1, "Positive | None", "must be a finite number > 0, got -1"),
        ("x", "PositiveInt", "expects int, got 'x'"),
        (0.5, "PositiveInt", "expects int, got 0.5"),
        ("b", "Literal['a', 'c']", "no such value 'b'; allowed: a, c"),
        (2, "Literal[1, 2]", None),
        ([1, 2], "list[int]", None),
        ([1, "a"], "Sequence[int]", "expects a list of int, got [1, 'a']"),
        ([1, 2], "tuple[int, int]", None),
        ([1], "tuple[int, int]", "expects [int, int], got [1]"),
        ([1, 2, 3], "tuple[int, ...]", None),
        (0.3, "Sequence[Fraction]", "expects a list of float in [0, 1], got 0.3; write [0.3]"),
        ("a", "list[str]", "expects a list of str, got 'a'; write [a]"),
        ({"a": 1}, "dict[str, int]", None),
        (1, "dict", "expects dict, got 1"),
        ("anything", "SomethingUnknown", None),
        ({"_target_": "a.B"}, "int", None),
        ("x", "Union[int, Literal['y']]", "no such value 'x'; allowed: y"),
        (3, "'int | str'", None),
    ],
)
def test_values_against_annotations(value, annotation, problem):
    assert find_annotation_problem(value, annotation) == problem
