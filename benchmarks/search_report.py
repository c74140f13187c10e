"""The table, the figure and the verdicts of the search benchmark, from its journal: a line for each network.

    python benchmarks/search_report.py

The best score by cost is drawn for the networks whose line holds the curve.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

from aptlab.report.statistics import compute_interval
from aptlab.report.style import COLOURS, INK, format_plain_ticks, make_two_panels, save_figure, set_heading
from common import RESULTS, table

SETTING = ("steps", "target", "iterations")
STRATEGIES = ("published", "halving")
GUESS = math.log(10)  # nats of a digit that is guessed
Line = dict[str, Any]
Found = dict[tuple[str, str], list[Line]]  # by rule and search: one for each seed


def searches_of(network: Line) -> Found:
    found: Found = {}
    for one in network["searches"]:
        found.setdefault((one["rule"], one["search"]), []).append(one)
    return found


def average(found: Found, key: tuple[str, str]) -> float:
    return sum(one["score"] for one in found[key]) / len(found[key])


def rows_of(networks: list[Line]) -> list[list[str]]:
    """A row for each rule, search and seed, a column for each network; tokens are their mean."""
    rows: dict[tuple[str, ...], list[str]] = {}
    spent: dict[tuple[str, ...], list[float]] = {}
    for column, network in enumerate(networks):
        fixed = [((name, ""), scores) for name, scores in network["rules"].items()]
        for key, one in [*fixed, *(((s["rule"], f"{s['search']} {s['seed']}"), s) for s in network["searches"])]:
            rows.setdefault(key, [""] * len(networks))[column] = f"{one['score']:.3f} / {one['unseen']:.3f}"
            spent.setdefault(key, []).append(one.get("tokens", 0) / 1e6)
    return [[*key, f"{fmean(spent[key]):.2f}" if any(spent[key]) else "0", *cells] for key, cells in rows.items()]


def verdicts(networks: list[Line]) -> list[str]:
    every = [(network, searches_of(network)) for network in networks]
    lines = []
    for key in every[0][1]:
        counts = []
        for name in networks[0]["rules"]:
            better = sum(max(one["score"] for one in found[key]) < net["rules"][name]["score"] for net, found in every)
            counts.append(f"{name} on {better}")
        read = sum(average(found, key) < GUESS for _, found in every)
        lines.append(
            f"- {key[0]}, {key[1]}, its worst seed: better than {', '.join(counts)} of {len(every)} networks; "
            f"digits read better than by guessing on {read}"
        )
    for rule in dict.fromkeys(rule for rule, _ in every[0][1]):
        costs = [[sum(one["tokens"] for one in found[rule, s]) for s in STRATEGIES] for _, found in every]
        share = sum(halving for _, halving in costs) / sum(published for published, _ in costs)
        change = difference(every, lambda f, rule=rule: average(f, (rule, "halving")) - average(f, (rule, "published")))
        lines.append(
            f"- {rule}: halving spends {share:.1%} of the published tokens; its score less the published: {change}"
        )
    for search in STRATEGIES:
        change = difference(every, lambda f, s=search: average(f, ("longrope2", s)) - average(f, ("longrope", s)))
        lines.append(f"- {search}: the score of longrope2 less that of longrope: {change}")
    return lines


def difference(every: list[tuple[Line, Found]], of: Callable[[Found], float]) -> str:
    """A difference of scores in words: mean and 95 % t interval over networks, and each of them."""
    values = [of(found) for _, found in every]
    known = compute_interval(values)
    assert known is not None
    half = "" if known.half is None else f" ± {known.half:.3f}"
    return f"{known.mean:+.3f}{half} nats (by network {', '.join(f'{value:+.3f}' for value in values)})"


def draw(networks: list[Line], path: Path, title: str) -> None:
    """Scores of all rules, a dot for each network and seed; and the best score by evaluated tokens."""
    figure, left, right = make_two_panels(title, bottom=0.24)
    box = left.get_position()
    left.set_position((0.2, box.y0, box.x1 - 0.2, box.height))  # room for the names
    set_heading(left, "score by rule (nats per token)")
    set_heading(right, "longrope: best score so far, by evaluated tokens (millions)")
    names = list(
        dict.fromkeys(name for network in networks for name in (*network["rules"], *map(label, network["searches"])))
    )
    for colour, (number, network) in zip(COLOURS, enumerate(networks, 1)):
        height = 0.15 * (number - (len(networks) + 1) / 2)  # beside one another, not on one another
        dots = [(names.index(name) + height, one["score"]) for name, one in network["rules"].items()]
        dots += [(names.index(label(one)) + height, one["score"]) for one in network["searches"]]
        places, scores = zip(*dots)
        left.plot(scores, places, "o", color=colour, markersize=5, alpha=0.8, label=f"network {number}")
        for one in network["searches"]:
            if one["rule"] == "longrope" and (curve := one.get("curve")):
                style = "-" if one["search"] == "halving" else "--"
                tokens, best = zip(*curve)
                right.step([t / 1e6 for t in tokens], best, where="post", color=colour, linestyle=style, linewidth=1.3)
    left.set_yticks(range(len(names)), names, fontsize=8)
    left.invert_yaxis()
    for axis, line in ((left, left.axvline), (right, right.axhline)):
        line(GUESS, color=INK, linewidth=1, linestyle=":", label="a guessed digit" if axis is left else None)
    left.set_xscale("log")
    right.set_xscale("log")
    right.set_yscale("log")
    for axis in (left.xaxis, right.xaxis, right.yaxis):
        format_plain_ticks(axis)
    right.set_xlabel("dashed: published, solid: halving")
    figure.legend(
        *left.get_legend_handles_labels(), loc="lower center", ncols=5, frameon=False, fontsize=8, labelcolor=INK
    )
    save_figure(figure, path)


def label(search: Line) -> str:
    return f"{search['rule'].replace('critical_dim=', 'from pair ')}, {search['search']}"


def write_report(journal: Path) -> None:
    networks = [json.loads(line) for line in journal.read_text().splitlines()]
    settings = {tuple(network[name] for name in SETTING) for network in networks}
    if len(settings) != 1:
        raise SystemExit(
            f"{journal} holds networks of {len(settings)} settings ({', '.join(SETTING)}); keep one of them"
        )
    _, target, _ = settings.pop()
    head = ["rule", "search, seed", "tokens (M)", *(f"network {n}" for n in range(1, len(networks) + 1))]
    told = [
        f"- network {n}: seed {one['network']}, {one['machine']}; {one['versions']}; {one['date']}"
        for n, one in enumerate(networks, 1)
    ]
    lines = [
        f"# Search for factors: 192 to {target} tokens, score = loss of hidden digits (nats)",
        "Score / the same on samples that no search has seen. A digit that is guessed costs "
        f"{GUESS:.2f} nats. A seed gives another network where a processor adds in another order.",
        table(head, rows_of(networks)),
        "\n".join(verdicts(networks)),
        "![Scores by rule and by cost](search.png)",
        "\n".join([*told, "- commands: `python benchmarks/search.py`, `python benchmarks/search_report.py`"]),
    ]
    text = "\n\n".join(lines) + "\n"
    (RESULTS / "search.md").write_text(text)
    print(text)
    draw(networks, RESULTS / "search.png", f"192 to {target} tokens: loss of hidden numbers")


if __name__ == "__main__":
    write_report(Path(sys.argv[1]) if len(sys.argv) > 1 else RESULTS / "search.jsonl")
