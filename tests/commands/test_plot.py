"""`aptlab plot`: what it writes and prints, what it refuses, and that it stays light."""

import csv
import subprocess
import sys

import pytest

from aptlab.cli import main
from aptlab.commands.plot import NAMES, parse_analyses, plan_plot
from aptlab.errors import ConfigError
from aptlab.report.positions import ANALYSES
from aptlab.report.positions.curve_rules import drop_unsupported_values, label_curves, parse_bases

SMALL = ["head_dim=16", "original=128"]


def test_the_command_writes_figures_and_numbers_and_prints_the_facts(tmp_path, capsys):
    out = tmp_path / "a b"
    assert main(["plot", "rope=standard,yarn", "what=wavelengths,memory", f"out={out}", *SMALL]) == 0
    assert sorted(path.name for path in out.iterdir()) == [
        "memory.csv",
        "memory.png",
        "wavelengths.csv",
        "wavelengths.png",
    ]
    with open(out / "wavelengths.csv") as file:
        rows = list(csv.DictReader(file))
    assert {row["rule"] for row in rows} == {"standard", "yarn"}
    assert len(rows) == 16
    assert float(rows[0]["wavelength"]) == pytest.approx(6.2831853)
    printed = capsys.readouterr().out
    assert "longest wave" in printed
    assert "trained 128, target 512 tokens, head of 16 dims" in printed
    assert f"written {out}/wavelengths.png {out}/wavelengths.csv" in printed


def test_one_value_with_several_numbers_gives_a_curve_each():
    request = plan_plot(["rope=yarn", "rope.factor=4,8,16", *SMALL])
    assert [name for name, _ in request.rules] == ["yarn factor=4", "yarn factor=8", "yarn factor=16"]
    assert [rule.factor for _, rule in request.rules] == [4, 8, 16]
    assert request.length == 2048
    assert request.what == NAMES


def test_a_value_goes_to_the_options_that_have_it_and_the_rest_is_told():
    request = plan_plot(["rope=standard,yarn", "rope.factor=2,8", *SMALL])
    assert [name for name, _ in request.rules] == ["standard", "yarn factor=2", "yarn factor=8"]
    assert request.notes == ("rope=standard has no factor; it is drawn without",)


def test_the_trained_context_reaches_the_rules():
    ((_, rule),) = plan_plot(["rope=yarn", "original=256", "head_dim=16"]).rules
    assert rule.original_len == 256


def test_names_of_the_request_are_those_of_the_analyses():
    assert tuple(ANALYSES) == NAMES


def test_analyses_and_bases_are_read_in_every_spelling():
    assert (
        parse_analyses("memory,decay")
        == parse_analyses("[decay, memory]")
        == parse_analyses(["decay", "memory"])
        == ("decay", "memory")
    )
    assert parse_analyses("all") == parse_analyses(None) == ()
    assert parse_bases("1e4,500") == parse_bases([500, "1e4"]) == (500.0, 10_000.0)


def test_labels_name_what_differs():
    jobs = [["rope=yarn", "rope.factor=4", "rope.base=500"], ["rope=yarn", "rope.factor=8", "rope.base=500"]]
    assert label_curves(jobs) == ["yarn factor=4", "yarn factor=8"]


def test_equal_curves_are_drawn_once():
    assert drop_unsupported_values([["rope=yarn"], ["rope=yarn"]])[0] == [["rope=yarn"]]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["what=decai"], r"what=decai: no such analysis; did you mean decay\?"),
        (["rope=yran"], r"rope=yran: no such option; did you mean yarn\?"),
        (["rope=yarn", "rope.factr=2"], r"rope.factr: .*did you mean factor\?"),
        (["rope=yarn", "rope.factor=0.5"], r"rope.factor: must be a finite number >= 1"),
        (["rope=null"], r"rope=null: there is no rule to plot"),
        (["lenght=8192"], r"lenght: unknown top-level key; did you mean length\?"),
        (["length=1024"], r"length=1024 is shorter than original=4096"),
        (["length=1024,2048"], r"length=1024,2048: a figure has one value of it"),
        (["length=long"], r"length: expects int or null"),
        (["original=8"], r"original=8: there is nothing to see below 16 tokens"),
        (["head_dim=63"], r"head_dim=63: pairs need an even number of dims"),
        (["seed=-1"], r"seed: must be a finite number >= 0"),
        (["base=1,ten"], r"base=1,ten: expects numbers"),
        (["base=0.5"], r"base=0.5: bases are numbers larger than 1"),
        (["rope=yarn", "rope.original_len=2048"], r"rope.original_len=2048 contradicts original=4096"),
        (
            ["rope=yarn", "rope.factor=8", "rope.target_len=32768", "length=8192"],
            r"rope.target_len=32768 lies beyond length=8192",
        ),
        (["rope.base=" + ",".join(map(str, range(2, 12)))], r"10 curves; a figure shows 8 at most"),
        (["source=text"], r"source=text: aptlab plot has no group source"),
    ],
)
def test_a_bad_request_is_refused_with_the_way_out(args, message):
    with pytest.raises(ConfigError, match=message):
        plan_plot(args)


def test_a_rule_without_frequencies_is_refused(tmp_path, capsys):
    assert main(["plot", "rope=none", f"out={tmp_path}"]) == 2
    assert "rope=none rotates no pair, so there is nothing to plot" in capsys.readouterr().err


@pytest.mark.slow
def test_an_analysis_that_was_not_asked_for_may_be_left_out_and_says_so(tmp_path, capsys):
    assert main(["plot", "rope=axial2d", f"out={tmp_path}", *SMALL]) == 0
    assert "left out: what=precision" in capsys.readouterr().out
    assert main(["plot", "rope=axial2d", "what=precision", f"out={tmp_path}", *SMALL]) == 2
    assert "coordinates" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_is_told(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["plot", f"out={tmp_path}/file", *SMALL]) == 2
    assert f"cannot make the folder {tmp_path}/file: File exists; choose another with out=…" in capsys.readouterr().err


def test_no_torch_is_loaded_but_for_precision(tmp_path):
    code = (
        "import sys; from aptlab.cli import main; "
        f"main(['plot', 'what=similarity,memory', 'out={tmp_path}', 'head_dim=16']); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
