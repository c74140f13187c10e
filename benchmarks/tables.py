"""The tables of README.md, CONTRIBUTING.md and docs/components.md that the repository itself holds.

A group's line is the first of conf/<group>/README.md, an option's the first comment of its file, the rows of the house
are those that tests/test_layers.py keeps, and the families of `aptlab import` are those that models/hf declares.
`python benchmarks/readme.py --tables` writes them, and tests/test_readme.py fails when they are stale.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

from aptlab.config.search_path import SHIPPED, Option, read_option_index
from aptlab.models.hf.family import list_families

ROOT = Path(__file__).resolve().parents[1]
COMPONENTS = ROOT / "docs" / "components.md"
Groups = dict[str, list[Option]]


def read_groups() -> Groups:
    """The shipped options of every group but recipes, each list by name with `none` in front."""
    groups: Groups = {}
    for group, options in sorted(read_option_index().groups.items()):
        shipped = [option for option in options.values() if option.place.name == SHIPPED]
        if shipped and group != "recipe":
            groups[group] = sorted(shipped, key=lambda option: (option.name != "none", option.name))
    return groups


def read_group_line(options: list[Option]) -> str:
    """What a group is for: the first line of the README.md beside its options."""
    path = options[0].path.with_name("README.md")
    if not path.is_file():
        raise SystemExit(f"{path} is missing; write one line in it that says what the group is for")
    return path.read_text(encoding="utf-8").splitlines()[0]


def format_group_table(groups: Groups) -> str:
    """A row a group, for README.md."""
    rows = ["| group | options | what it is |", "|---|---|---|"]
    for group, options in groups.items():
        names = " ".join(f"`{option.name}`" for option in options)
        rows.append(f"| `{group}` | {names} | {read_group_line(options)} |")
    return "\n".join(rows)


def format_components_page(groups: Groups) -> str:
    """docs/components.md: a table a group, a row an option."""
    parts = [
        "# Components\n\nEvery option with the first line of its file in conf/. `aptlab show rope=yarn` says what one "
        "takes and cites.\nWritten by `python benchmarks/readme.py --tables`."
    ]
    for group, options in groups.items():
        rows = [f"| `{option.name}` | {option.comment().replace('|', chr(92) + '|')} |" for option in options]
        head = f"## {group}\n\n{read_group_line(options)}\n\n| option | what it does |\n|---|---|"
        parts.append("\n".join([head, *rows]))
    return "\n\n".join(parts) + "\n"


def read_rows() -> list[list[str]]:
    """The rows of the house from the top to the bottom, as tests/test_layers.py has them; not imported."""
    tree = ast.parse((ROOT / "tests" / "test_layers.py").read_text(encoding="utf-8"))
    found = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    return [row.split() for row in reversed(ast.literal_eval(found["ROWS"]))]


def format_rows() -> str:
    """A line a row, for CONTRIBUTING.md and docs/architecture.md."""
    return "\n".join(["```", *(" ".join(row) for row in read_rows()), "```"])


def format_families() -> str:
    """A row a Hugging Face layout, for README.md: those that the code declares."""
    rows = ["| family | `model_type` | released models |", "|---|---|---|"]
    return "\n".join(rows + [f"| {title} | `{kind}` | {models} |" for title, kind, models in list_families()])


def replace_block(text: str, name: str, block: str) -> str:
    """The text with what stands between two markers replaced; SystemExit where the markers are missing."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    if text.count(begin) != 1 or text.count(end) != 1:
        raise SystemExit(f"{begin} and {end} must stand once in the file; put them where the table belongs")
    return re.sub(f"{begin}.*{end}", lambda _: f"{begin}\n{block}\n{end}", text, flags=re.DOTALL)


def render_tables() -> dict[Path, str]:
    """What each file with a generated part should hold."""
    groups, rows = read_groups(), format_rows()
    readme, guide, house = ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "docs" / "architecture.md"
    return {
        readme: replace_block(
            replace_block(readme.read_text(encoding="utf-8"), "components", format_group_table(groups)),
            "families",
            format_families(),
        ),
        guide: replace_block(guide.read_text(encoding="utf-8"), "rows", rows),
        house: replace_block(house.read_text(encoding="utf-8"), "rows", rows),
        COMPONENTS: format_components_page(groups),
    }


def write_tables() -> None:
    """Write every generated part again."""
    for path, text in render_tables().items():
        path.write_text(text, encoding="utf-8")
        print(f"written {path.relative_to(ROOT)}")
