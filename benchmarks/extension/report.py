"""The table, the figures and the verdicts of the extension study, from its journal.

    python benchmarks/extension/report.py outputs/extension.jsonl

Writes extension.md, extension_lengths.png and extension_tasks_8.png, one for each factor, into benchmarks/results.
Several journals with one setting, as seeds that were measured side by side leave them, make one report. A line
{"kind": "note", "text": …} of a journal says what a reader must know of it, and ends the report. What lies there comes
from

    python benchmarks/extension/report.py benchmarks/results/extension.jsonl
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from aptlab.report.heatmap import HeatPanel, draw_heatmaps
from aptlab.report.statistics import ConfidenceInterval, compute_interval, compute_paired_interval
from aptlab.report.style import INK, format_plain_ticks, get_indexed_style, make_two_panels, save_figure, set_heading

sys.path.append(str(Path(__file__).parents[1]))

from common import RESULTS, table
from methods import METHODS
from run import PLACE, Journal

CONVERTED = (
    "- `irope`: every fourth layer without rotation, the others in blocks of L (Llama 4); `irope_pairs`: the",
    "  seeds' four bases. Both replace the plain rotation that the bases were trained with.",
)
TRAINED = (
    "- `irope_trained`: networks of the same size and budget that had every fourth layer without rotation and the",
    "  others in blocks of L / 4 from the start, and are used at the target as they are.",
)
Line = dict[str, Any]
Value = Callable[[Line], float]
# What the literature says: the first is better than the second (LongRoPE2, arXiv:2502.20082, tables 2, 3 and 6 to 8;
# the last, of networks that were trained with it: Meta AI, "The Llama 4 herd", 2025).
EXPECTED = (
    ("longrope2", "longrope", "LongRoPE2 ahead of LongRoPE"),
    ("longrope", "yarn", "LongRoPE ahead of YaRN"),
    ("ntk_liu", "yarn", "NTK (base by Liu) ahead of YaRN"),
    ("longrope2", "yarn", "LongRoPE2 ahead of YaRN"),
    ("longrope2", "longrope2_ppl", "needle objective ahead of perplexity objective"),
    ("longrope2_mixed", "longrope2", "mixed windows ahead of one window"),
    ("irope_trained", "yarn", "irope from the start ahead of YaRN"),
)


def at_target(line: Line) -> float:
    return list(line["ppl"].values())[-1]


def at_base(line: Line) -> float:
    return next(iter(line["ppl"].values()))


def pass_key(line: Line) -> float:
    return 100 * line["scores"]["passkey"]


def ruler(line: Line) -> float:
    tasks = [score for name, score in line["scores"].items() if name != "passkey"]
    return 100 * sum(tasks) / len(tasks)


MEASURES: dict[str, tuple[Value, bool]] = {  # name: value, whether more is better
    "ppl at target": (at_target, False),
    "ppl at L": (at_base, False),
    "pass key %": (pass_key, True),
    "RULER %": (ruler, True),
}


class Results:
    """The lines of journals by what they measured; `factors` limits them, None = all."""

    def __init__(self, lines: Sequence[Line], factors: Sequence[int] | None = None) -> None:
        settings = [line for line in lines if line["kind"] == "setting"]
        budgets = [{key: value for key, value in line.items() if key not in PLACE} for line in settings]
        if not settings:
            raise SystemExit("there is no setting in it; give the journal of a run.py that has begun to measure")
        if any(budget != budgets[0] for budget in budgets):
            raise SystemExit("these journals have different settings; report each by itself")
        wanted = None if factors is None else {1, *factors}
        self.setting = settings[0]
        self.lines = [x for x in lines if x["kind"] == "result" and (wanted is None or x["factor"] in wanted)]
        told = [tuple(line[key] for key in ("seed", "factor", "method", "tuned")) for line in self.lines]
        if twice := sorted({unit for unit in told if told.count(unit) > 1}):
            raise SystemExit(f"(seed, factor, method, tuned) = {twice[0]} is measured twice; report each by itself")
        self.searches = [line for line in lines if line["kind"] == "search"]
        self.notes = [line["text"] for line in lines if line["kind"] == "note"]
        self.factors = sorted({line["factor"] for line in self.lines if line["factor"] > 1})
        self.seeds = sorted({line["seed"] for line in self.lines})
        self.named = [name for name in METHODS if any(line["method"] == name for line in self.lines)]

    def of(self, method: str, factor: int, tuned: bool) -> dict[int, Line]:
        """Lines by seed."""
        return {
            line["seed"]: line
            for line in self.lines
            if (line["method"], line["factor"], line["tuned"]) == (method, factor, tuned)
        }

    def methods(self, factor: int, tuned: bool) -> list[str]:
        return [name for name in METHODS if self.of(name, factor, tuned)]

    def cost(self, method: str, factor: int) -> str:
        """Of one search: evaluated tokens and seconds, means over seeds."""
        if METHODS[method].search is None:
            return "none"
        found = METHODS[method].found_by
        mine = [line for line in self.searches if (line["method"], line["factor"]) == (found, factor)]
        tokens, seconds = (sum(line[key] for line in mine) / len(mine) for key in ("tokens", "seconds"))
        return f"{tokens / 1e6:.1f} M, {seconds:.0f} s"


def shown(values: Sequence[float]) -> str:
    """Mean ± 95 % interval; of numbers that span decades the range, because a mean would be that of the largest."""
    if max(values) > 100 * max(min(values), 1e-9) and min(values) > 0:
        return f"{min(values):,.3g} to {max(values):,.3g}"
    told = compute_interval(values)
    assert told is not None
    digits = 2 if abs(told.mean) < 10 else 1 if abs(told.mean) < 100 else 0
    text = f"{told.mean:,.{digits}f}"
    return text if told.half is None else f"{text} ± {told.half:,.{digits}f}"


def rows(results: Results, factor: int, tuned: bool) -> list[list[str]]:
    made = []
    for method in results.methods(factor, tuned):
        lines = list(results.of(method, factor, tuned).values())
        values = [shown([value(line) for line in lines]) for value, _ in MEASURES.values()]
        made.append([method, str(len(lines)), *values, results.cost(method, factor)])
    return made


def verdict(results: Results, better: str, worse: str, factor: int, tuned: bool, measure: str) -> str | None:
    """Whether the difference over the seeds that both have excludes 0; perplexities are compared by their logarithm."""
    value, more = MEASURES[measure]
    own = (lambda line: math.log(value(line))) if "ppl" in measure else value
    sides = [{seed: own(line) for seed, line in results.of(name, factor, tuned).items()} for name in (better, worse)]
    told = compute_paired_interval(*sides)  # type: ignore[arg-type]
    if told is None or told.half is None:
        return None
    gain = told if more else ConfidenceInterval(-told.mean, told.half, told.n)
    unit = "nats" if "ppl" in measure else "points"
    few = f", {gain.n} seeds" if gain.n < len(results.seeds) else ""
    if gain.mean and told.half < 1e-9:  # scores are counts of few answers: seeds that agree by chance have no spread
        return f"no spread to judge by ({gain.mean:+.2f} {unit}{few})"
    word = "holds" if gain.low > 0 else "the opposite holds" if gain.high < 0 else "not separated"
    return f"{word} ({gain.mean:+.2f} ± {gain.half:.2f} {unit}{few})"


def verdicts(results: Results) -> list[list[str]]:
    made = []
    for better, worse, claim in EXPECTED:
        for factor in results.factors:
            for tuned in (False, True):
                found = [verdict(results, better, worse, factor, tuned, name) for name in MEASURES]
                if any(found):
                    how = "fine-tuned" if tuned else "as trained"
                    made.append([claim, f"{factor}x, {how}", *(one or "" for one in found)])
    return made


def draw_lengths(results: Results, path: Path) -> None:
    """Perplexity by length at the largest factor: as trained, and fine-tuned where that was measured."""
    tuned_factor = max((f for f in results.factors if results.methods(f, True)), default=max(results.factors))
    panels = [(max(results.factors), False, "as trained"), (tuned_factor, True, "after a short fine-tuning")]
    figure, *axes = make_two_panels("Perplexity per byte against length: mean over seeds (geometric)", bottom=0.27)
    for panel, (factor, tuned, how) in zip(axes, panels):
        set_heading(panel, f"extended {factor} times, {how}")
        drawn = {method: curve(results.of(method, factor, tuned)) for method in results.methods(factor, tuned)}
        if not drawn:
            panel.text(0.5, 0.5, "not measured", transform=panel.transAxes, ha="center", color=INK)
            panel.set_axis_off()
            continue
        top = 1.3 * sorted(max(means) for _, means in drawn.values())[len(drawn) * 3 // 4]
        above = [method for method, (_, means) in drawn.items() if min(means) > top]
        if above:
            text = f"above this panel: {', '.join(above)}"
            panel.text(0.99, 0.97, text, transform=panel.transAxes, ha="right", va="top", fontsize=8, color=INK)
        for number, method in enumerate(METHODS):
            if method in drawn and method not in above:
                panel.plot(*drawn[method], label=method, linewidth=1.4, markersize=3.5, **get_indexed_style(number))
        panel.axvline(results.setting["context"], color=INK, linewidth=0.8, linestyle=":")
        panel.set_xscale("log", base=2)
        panel.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        panel.set_yscale("log")
        panel.set_ylim(0.95 * min(min(means) for _, means in drawn.values()), top)
        panel.set_xlabel("tokens of a window (dotted: trained length)")
        format_plain_ticks(panel.yaxis)
    names = {}
    for panel in axes:
        handles, labels = panel.get_legend_handles_labels()
        names |= dict(zip(labels, handles))
    ordered = [name for name in METHODS if name in names]
    figure.legend(
        [names[name] for name in ordered], ordered, loc="lower center", ncols=6, frameon=False, fontsize=8,
        labelcolor=INK,
    )  # fmt: skip
    save_figure(figure, path)


def curve(lines: dict[int, Line]) -> tuple[list[int], list[float]]:
    """Lengths, and the geometric mean of the perplexities over seeds."""
    logs = [[math.log(value) for value in line["ppl"].values()] for line in lines.values()]
    lengths = [int(length) for length in next(iter(lines.values()))["ppl"]]
    return lengths, [math.exp(sum(values) / len(values)) for values in zip(*logs)]


def draw_tasks(results: Results, factor: int, path: Path) -> None:
    """Answers found by method and task at this factor, as trained and fine-tuned."""
    tasks = ["passkey", *(name for name in results.lines[0]["scores"] if name != "passkey")]
    methods = [name for name in METHODS if any(results.of(name, factor, tuned) for tuned in (False, True))]
    panels = []
    for tuned in (False, True):
        found = [[mean(results.of(method, factor, tuned), task) for task in tasks] for method in methods]
        title = f"percent of answers found, {'fine-tuned' if tuned else 'as trained'}"
        columns = [short(task) for task in tasks]
        panels.append(HeatPanel(title=title, rows=methods, columns=columns, values=found, low=0, high=100))
    target = results.setting["context"] * factor
    title = f"Pass key and RULER's tasks at {target:,} tokens, {factor} times the trained length"
    draw_heatmaps(panels, title=title, path=path, across="task (niah: s single, k key, v value, q query)")


def mean(lines: dict[int, Line], task: str) -> float | None:
    """Percent over seeds; None where nothing was measured."""
    return 100 * sum(line["scores"][task] for line in lines.values()) / len(lines) if lines else None


def short(task: str) -> str:
    """A name that fits under a column."""
    names = {"passkey": "pass", "niah_multivalue": "mv", "niah_multiquery": "mq"}
    return names.get(task) or task.replace("niah_single_", "s").replace("niah_multikey_", "k").replace("_", "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("journals", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the table and the figures")
    parser.add_argument("--name", default="extension", help="what their names begin with")
    parser.add_argument("--factors", type=int, nargs="+", help="report these alone")
    args = parser.parse_args()
    missing = [str(path) for path in args.journals if not path.exists()]
    if missing:
        raise SystemExit(f"no such journal: {', '.join(missing)}")
    results = Results([line for path in args.journals for line in Journal(path).lines], args.factors)
    if not results.factors:
        raise SystemExit("nothing beyond the trained length is measured yet; run.py goes on with the same command")
    draw_lengths(results, args.out / f"{args.name}_lengths.png")
    for factor in results.factors:
        draw_tasks(results, factor, args.out / f"{args.name}_tasks_{factor}.png")
    text = "\n".join([*opening(results), *tables(results), *closing(results, args.name)])
    (args.out / f"{args.name}.md").write_text(text + "\n")
    print(text)


def opening(results: Results) -> list[str]:
    """What was done."""
    s, seeds = results.setting, len(results.seeds)
    lines = [
        f"# {len(results.named)} ways to a longer context, one model, one budget",
        "",
        f"Byte models of {s['parameters']:,} parameters, {seeds} seeds, trained at L = {s['context']} tokens by",
        "`recipe=context_base` (900 steps of 65,536 tokens: half plain text, half questions), then read at longer",
        "lengths.",
        "",
        "- ppl: per byte, on the same validation bytes at every length. The target is the factor times L.",
        f"- pass key, RULER (mean of 13 tasks): at the target; {s['passkeys']} and 13 x {s['ruler']} samples a seed.",
        "  An answer counts when each of its tokens is the likeliest after the right ones before it.",
        f"- fine-tuning: {s['steps']} steps of {s['tokens_per_step']:,} tokens of the base's own mixture at the target",
        "  length, the same tokens for all. `longrope2_mixed` keeps short windows on the original rotation.",
        f"- searches: successive halving, population {s['population']}, {s['iterations']} iterations, 10 samples.",
        "  `longrope` and `longrope2_ppl` search by perplexity, `longrope2` by needle perplexity.",
        *(CONVERTED if "irope" in results.named else ()),
        *(TRAINED if "irope_trained" in results.named else ()),
        "- ±: 95 % t interval over seeds; where values span more than two decades, their range.",
        "",
    ]
    for name, told in (("base", "The bases"), ("irope_trained", "`irope_trained`")):
        if bases := list(results.of(name, 1, False).values()):
            ppl, key, tasks = (shown([value(base) for base in bases]) for value in (at_base, pass_key, ruler))
            lines += [f"{told} at L: perplexity {ppl}, pass key {key} %, RULER {tasks} %.", ""]
    return lines


def tables(results: Results) -> list[str]:
    head, lines = ["method", "seeds", *MEASURES, "search: tokens, time"], []
    for tuned in (False, True):
        for factor in results.factors:
            how = f"after {results.setting['steps']} steps of fine-tuning" if tuned else "as trained"
            made = rows(results, factor, tuned)
            lines += [f"## {factor} times the length, {how}", "", table(head, made) if made else "Not measured.", ""]
    return lines


def budget(setting: Line) -> str:
    """The options of run.py that were in force; its defaults may be others by now."""
    measured = {key: value for key, value in setting.items() if key not in (*PLACE, "kind", "context", "parameters")}
    return " ".join(f"--{key.replace('_', '-')} {value}" for key, value in measured.items())


def closing(results: Results, name: str) -> list[str]:
    """Verdicts, figures, provenance."""
    s = results.setting
    return [
        "## What the literature expects",
        "",
        "Differences over paired seeds with their 95 % t interval; positive is better.",
        "",
        table(["claim", "where", *MEASURES], verdicts(results)),
        "",
        f"![Perplexity against length]({name}_lengths.png)",
        "",
        *(line for x in results.factors for line in (f"![Tasks by method, {x} times]({name}_tasks_{x}.png)", "")),
        f"- machine: {s['machine']}",
        f"- versions: {s['versions']}",
        f"- commands: those at the top of `benchmarks/extension/run.py`; the journal is `{name}.jsonl`",
        f"- options of `run.py`: `{budget(s)}`",
        *(f"- {note}" for note in results.notes),
    ]


if __name__ == "__main__":
    main()
