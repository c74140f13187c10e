"""Text out of run folders, tokens and samples is shown as text, in every place where something would obey it."""

from __future__ import annotations

import ast
import csv
import io
import json
import logging
import sys
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from aptlab.cli import report_error
from aptlab.commands import compare as compare_command
from aptlab.commands import ls as ls_command
from aptlab.errors import AptlabError
from aptlab.evals.retrieval_tables import format_table_csv
from aptlab.loggers.wandb_run import _flatten
from aptlab.report.style import make_two_panels, save_figure, set_heading
from aptlab.report.table import format_columns, render_markdown_table, render_table
from aptlab.runs import RunLog
from aptlab.runs.progress import ProgressBar
from aptlab.sample.screen import dim_line
from aptlab.shown import (
    print_drawn,
    print_shown,
    show_csv_cell,
    show_label,
    show_line,
    show_markdown,
    show_message,
    show_text,
)

SOURCE = Path(__file__).parents[2] / "src" / "aptlab"
ESC = "\x1b"
CLEAR = f"{ESC}[2J{ESC}]0;title\x07"  # clears a screen, and names its window
EVIL = f"a{CLEAR}|<b>\n=1\u202e"
EVERY = "".join(map(chr, range(0x300))) + "\u2028\u202e\ufeff\ud800\U0001f468\u200d\U0001f469"


def find_controls(text: str) -> set[str]:
    return {sign for sign in text if ord(sign) < 32 or 127 <= ord(sign) < 160}


def test_a_text_keeps_lines_tabs_and_every_letter():
    text = "zwei\n\tZeilen é 語 עברית \U0001f468\u200d\U0001f469 \u202bx\u202c"
    assert show_text(text) == text
    assert find_controls(show_text(EVERY)) == {"\n", "\t"}
    assert show_text(f"{ESC}[31mred\x9b\x08\r") == r"\x1b[31mred\x9b\x08\x0d"


def test_a_message_and_a_line_turn_no_order_round():
    assert find_controls(show_message(EVERY)) == {"\n", "\t"}
    assert find_controls(show_line(EVERY)) == set()
    assert show_line("a\nb\tc\rd\u202e") == r"a\nb\tc\rd\u202e"
    assert "\u202e" not in show_message(EVERY)


@pytest.mark.parametrize("show", [show_text, show_message, show_line, show_markdown, show_label, show_csv_cell])
def test_what_is_shown_can_be_encoded_and_is_the_same_when_shown_twice(show):
    """A file name of other bytes is a lonely half of a character, which no stream takes."""
    shown = show("caf\udce9 and \ud800")
    assert shown.encode()
    assert show_line(shown) == shown


@pytest.mark.parametrize(
    "text",
    ["*bold*", "_slanted_", "`code`", "[text](http://x)", "<script>", "&lt;", "a|b", "~~x~~", "$x$", "# x", "- x"],
)
def test_markdown_shows_a_text_and_no_markup(text):
    """Read by a renderer, where there is one; its text is what was given."""
    markdown = pytest.importorskip("markdown_it")
    page = markdown.MarkdownIt("gfm-like", {"linkify": False}).enable("table").render(f"a {show_markdown(text)}")
    assert page.count("<") == 2, page
    import html

    assert html.unescape(page) == f"<p>a {text}</p>\n"


def test_markdown_leaves_names_and_numbers_as_they_are():
    for plain in ("rope=left_spin", "-0.5 ± 0.1", "1.5321 (2 of 3)", "ppl@4x", "n=3", "+0.2"):
        assert show_markdown(plain) == plain


def test_a_cell_that_a_spreadsheet_would_compute_is_a_text():
    for formula in ("=1+1", "+x", "-x", "@SUM(A1)", "\tx", "\rx", "\nx", "  =1", "＝1", "=cmd|' /C x'!A0"):
        assert show_csv_cell(formula).startswith("'"), formula
    for number in ("-1.5", "+2", "-1e-05", "-inf", "nan", "3", "-0"):
        assert show_csv_cell(number) == number
    for value in (-1.5, 3, None, True):
        assert show_csv_cell(value) is value
    for text in ("a-b", "rope=yarn", "x=1", ""):
        assert show_csv_cell(text) == text


def write_run(folder: Path, choice: str, loss: float) -> None:
    folder.mkdir(parents=True)
    result = {"job": "train", "seed": 0, "steps": 2, "tokens": 4, "choices": {"rope": choice}}
    result |= {"metrics": {"val/loss": loss, f"=x{CLEAR}": -0.5}, "status": "finished"}
    (folder / "result.json").write_text(json.dumps(result))
    (folder / "config.yaml").write_text("{}")
    (folder / "choices.yaml").write_text(json.dumps({"rope": choice}))
    (folder / "metrics.csv").write_text("step,epoch,val/loss\n1,0,2.5\n2,0,2.0\n")


@pytest.fixture
def compared(tmp_path, capsys) -> tuple[Path, str]:
    for number, choice in enumerate(("plain", EVIL, "=1+1", "$x^2$", "[red]x")):
        write_run(tmp_path / f"runs{CLEAR}" / f"run{number}", choice, 2.0 + number)
    assert compare_command.run([str(tmp_path / f"runs{CLEAR}"), f"out={tmp_path / 'out'}"]) == 0
    return tmp_path / "out", capsys.readouterr().out


def test_a_comparison_obeys_nothing_out_of_its_runs(compared):
    out, screen = compared
    assert find_controls(screen) == {"\n"}
    for name in ("table.txt", "table.md", "table.csv"):
        assert find_controls((out / name).read_text()) == {"\n"}, name
    page = (out / "table.md").read_text()
    assert "<b>" not in page
    assert len({line.replace("\\|", "").count("|") for line in page.splitlines() if line.startswith("|")}) == 1


def test_a_comparison_as_a_sheet_computes_nothing_and_keeps_its_numbers(compared):
    rows = list(csv.reader(io.StringIO((compared[0] / "table.csv").read_text())))
    assert not [cell for row in rows for cell in row if cell[:1] in "=+@" and cell]
    assert {row[0] for row in rows} >= {"'=1+1", "$x^2$", "[red]x"}
    assert [cell for row in rows for cell in row if cell.startswith("-")]
    assert all(float(cell) < 0 for row in rows for cell in row if cell.startswith("-"))


@pytest.mark.parametrize("terminal", [False, True])
def test_a_table_obeys_no_cell(terminal):
    text = render_table([f"h{CLEAR}", "n"], [[f"[bold]x[/]{CLEAR}", "1"]], title=f"t{CLEAR}", terminal=terminal)
    assert f"{ESC}[2J" not in text
    assert f"{ESC}]" not in text
    assert "[bold]x[/]" in text


def test_columns_and_pages_obey_no_cell():
    assert find_controls(format_columns([(f"a{CLEAR}", f"b{CLEAR}\nc", f"d{CLEAR}")])) == set()
    assert find_controls(render_markdown_table([f"a{CLEAR}"], [[f"b\n{CLEAR}"]])) == {"\n"}


def test_a_sheet_of_samples_computes_no_answer():
    page = format_table_csv(("task", "score", "generated"), [{"task": "t", "score": -0.5, "generated": f"=1{ESC}[2J"}])
    assert list(csv.reader(io.StringIO(page)))[1] == ["t", "-0.5", "'=1\\x1b[2J"]


def test_an_error_obeys_nothing_that_it_names(capsys):
    assert report_error(AptlabError(f"the file {CLEAR} is none"), []) == 2
    assert capsys.readouterr().err == "the file \\x1b[2J\\x1b]0;title\\x07 is none\n"


def test_logs_obey_nothing_that_they_name(tmp_path, capsys):
    with RunLog.start(tmp_path):
        logging.getLogger("aptlab").warning("skipped %s", CLEAR)
    assert find_controls(capsys.readouterr().err) == {"\n"}
    assert find_controls((tmp_path / "log.txt").read_text()) == {"\n"}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_obeys_no_markup_and_no_control(monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("TERM", "xterm")
    with ProgressBar(f"[red]a[/red]{ESC}]0;x\x07", total=2, refresh=0.0) as bar:
        bar.update(1, f"[bold]note[/bold]{ESC}]0;x\x07")
        bar.print_line(f"[b]line[/b] :bomb: {ESC}]0;x\x07")
    text = screen.getvalue()
    assert f"{ESC}]0" not in text
    assert "\x07" not in text
    assert "[red]a[/red]" in text
    assert "[b]line[/b] :bomb: \\x1b]0;x\\x07" in text


def test_plain_progress_obeys_nothing(capsys):
    with ProgressBar("a", total=1) as bar:
        bar.update(1, CLEAR)
    assert find_controls(capsys.readouterr().out) == {"\n"}


def test_ls_obeys_no_comment_of_an_option(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf" / "rope").mkdir(parents=True)
    (tmp_path / "conf" / "rope" / "mine.yaml").write_text(f"# says {CLEAR}\na: 1\n")
    assert ls_command.run(["rope"]) == 0
    out = capsys.readouterr().out
    assert find_controls(out) == {"\n"}
    assert "says \\x1b[2J" in out


def test_a_figure_sets_no_formula_and_shows_no_control(tmp_path):
    figure, left, right = make_two_panels(f"$\\frac{{1}}$ {ESC}[2J")
    set_heading(left, "$x^2$")
    left.plot([1, 2], [1, 2], label="$\\unknown{x}$")
    left.legend()
    right.set_xticks([0, 1], [show_label("$\\unknown$"), "b"])
    save_figure(figure, tmp_path / "figure.png")
    texts = [*figure.texts, left.title, left._left_title, *left.get_legend().get_texts()]
    assert not any(text.get_parse_math() for text in texts)
    assert figure.texts[0].get_text().endswith("\\x1b[2J")


def test_ticks_that_matplotlib_writes_stay_formulas(tmp_path):
    figure = Figure()
    axes = figure.add_subplot()
    axes.loglog([1e-9, 1e9], [1, 2])
    save_figure(figure, tmp_path / "figure.png")
    assert any(label.get_parse_math() and "$" in label.get_text() for label in axes.get_xticklabels())


def test_a_tracker_is_given_plain_words():
    assert _flatten({"a\n": {"b": f"x{CLEAR}", "n": -1.5}}) == [
        ("a\\n/b", "x\\x1b[2J\\x1b]0;title\\x07"),
        ("a\\n/n", -1.5),
    ]


def test_colours_of_our_own_tables_stay_and_nothing_else(capsys):
    print_drawn(f"{ESC}[1;32mbold{ESC}[0m {ESC}[2J{ESC}]0;x\x07")
    assert capsys.readouterr().out == f"{ESC}[1;32mbold{ESC}[0m \\x1b[2J\\x1b]0;x\\x07\n"
    print_shown("a", f"{ESC}[1m", end="")
    assert capsys.readouterr().out == "a\n\\x1b[1m"
    assert dim_line(f"x{ESC}[2J", Terminal()) == f"{ESC}[2mx\\x1b[2J{ESC}[0m"


PRINTS = {"shown.py", "sample/screen.py", "commands/generate.py"}  # where text was escaped before


def test_nothing_prints_past_the_escape():
    """`print` obeys what it is given, so everything that is shown goes through `aptlab.shown`."""
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        name, text = path.relative_to(SOURCE).as_posix(), path.read_text()
        if "print(" not in text and "sys.std" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            bare = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
            written = isinstance(node, ast.Call) and ast.unparse(node.func) in ("sys.stdout.write", "sys.stderr.write")
            if (bare or written) and name not in PRINTS:
                found.append(f"{name}:{node.lineno}")
    assert found == []


def test_no_table_is_written_past_the_escape():
    """Every writer of CSV but the one of numbers that are read again escapes its texts."""
    texts = {path.relative_to(SOURCE).as_posix(): path.read_text() for path in SOURCE.rglob("*.py")}
    writers = [name for name, text in texts.items() if "csv.writer(" in text and name != "runs/table.py"]
    assert len(writers) == 3
    assert [name for name in writers if "show_csv_cell" not in texts[name]] == []
