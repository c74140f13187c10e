from __future__ import annotations

import re
from pathlib import Path

import pytest

from aptlab.cli import main
from aptlab.config import compose


def out(capsys, *args: str, code: int = 0) -> str:
    assert main(list(args)) == code
    captured = capsys.readouterr()
    return captured.err if code else captured.out


def local(name: str = "mine") -> None:
    Path("conf/rope").mkdir(parents=True, exist_ok=True)
    Path(f"conf/rope/{name}.yaml").write_text(
        "# My own rule.\n_target_: aptlab.nn.positions.rope.Standard\nbase: 9.0\n"
    )


def test_ls_lists_groups_and_options(capsys):
    shown = out(capsys, "ls")
    assert re.search(r"^rope +axial2d .*\byarn yarn_uniform yarn_zones$", shown, re.MULTILINE)
    local()
    shown = out(capsys, "ls", "rope")
    assert re.search(r"^mine +My own rule\.  \(\./conf\)$", shown, re.MULTILINE)
    assert re.search(r"^yarn +Keep fast frequencies.*2309\.00071\)\.$", shown, re.MULTILINE)


def test_ls_of_an_unknown_group(capsys):
    assert "there is no config group rop; did you mean rope?" in out(capsys, "ls", "rop", code=2)
    assert "aptlab ls takes one group, got a b" in out(capsys, "ls", "a", "b", code=2)


def test_show_explains_an_option(capsys):
    shown = out(capsys, "show", "rope=yarn")
    assert "factor: 4.0           # new context / original_len" in shown
    assert "Keep fast pairs, divide slow ones by `factor`" in shown
    assert re.search(r"^  factor +float >= 1( or null)?, default 4\.0$", shown, re.MULTILINE)
    assert re.search(r"^  ramp +index \| ratio, default index$", shown, re.MULTILINE)
    assert out(capsys, "show", "rope/yarn") == shown


def test_show_says_where_a_local_option_is(capsys):
    local()
    assert out(capsys, "show", "rope=mine").startswith("rope=mine (./conf, ")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["rope=yran"], "rope=yran: no such option; did you mean yarn?"),
        (["rop=yarn"], "there is no config group rop; did you mean rope?"),
        (["rope"], "rope is a group; aptlab ls rope lists its options, aptlab show rope="),
        (["rop"], "aptlab show takes one option, for example: aptlab show rope=yarn"),
        ([], "aptlab show takes one option"),
    ],
)
def test_show_of_what_is_not_there(args, message, capsys):
    assert message in out(capsys, "show", *args, code=2)


def test_check_says_ok_and_the_choices(capsys):
    shown = out(capsys, "check", "rope=yarn", "size=debug")
    assert shown.startswith("ok: aptlab train rope=yarn size=debug\n")
    assert re.search(r"^  rope +yarn$", shown, re.MULTILINE)
    assert shown.rstrip().endswith(compose("train", ["rope=yarn", "size=debug"]).hash())


def test_check_notes_a_rotation_that_nobody_asked_for(capsys):
    shown = out(capsys, "check", "embed=learned", "bias=alibi").splitlines()
    assert shown[1].startswith("note: rope=standard rotates queries and keys beside embed=learned and bias=alibi; ")


def test_check_lists_problems(capsys):
    shown = out(capsys, "check", "rope.factor=8", "seed=-1", code=2)
    assert shown.startswith("the config has problems:\n")
    assert len(shown.splitlines()) == 3


def test_check_of_another_command(capsys):
    assert out(capsys, "check", "generate", "temperature=0.5").startswith("ok: aptlab generate temperature=0.5")
    assert "temperature: must be a finite number >= 0, got -1" in out(
        capsys, "check", "generate", "temperature=-1", code=2
    )


def test_cp_copies_under_a_new_name(capsys):
    assert out(capsys, "cp", "rope/yarn") == "conf/rope/my_yarn.yaml: use it as rope=my_yarn\n"
    assert compose("train", ["rope=my_yarn"]).cfg.rope._target_ == "aptlab.nn.positions.rope.YaRN"
    assert out(capsys, "cp", "rope=yarn", "long") == "conf/rope/long.yaml: use it as rope=long\n"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["rope/yarn", "ntk"], "rope=ntk exists already"),
        (["rope/yarn", "mine"], "rope=mine exists already"),
        (["rope/yarn", "../x"], "../x: an option's name is of letters, digits and . _ -"),
        (["rope/yran"], "rope=yran: no such option; did you mean yarn?"),
        (["yarn"], "aptlab cp takes an option and a new name"),
        ([], "aptlab cp takes an option and a new name"),
    ],
)
def test_cp_never_overwrites_or_shadows(args, message, capsys):
    local()
    before = Path("conf/rope/mine.yaml").read_text()
    assert message in out(capsys, "cp", *args, code=2)
    assert Path("conf/rope/mine.yaml").read_text() == before
    assert [path.name for path in Path("conf/rope").iterdir()] == ["mine.yaml"]
