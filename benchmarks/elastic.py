"""One nested network against a dense network of each of its widths, trained on the same tokens.

    python benchmarks/elastic.py --size tiny --steps 300 --seeds 0 1 2
    python benchmarks/elastic.py --size 10m --steps 900 --seeds 0 1 2 3 4 5 -- device=cuda context=512 data.batch=64
    python benchmarks/elastic.py --report     the committed table and figure again, from the committed journal alone

For each seed a network with ffn=matformer is trained by each objective, and a dense one for each width, with
`size.hidden` of that width; everything else, the order of the text too, is the same. Words after `--` are overrides of
every run. A run is a folder under --runs and a line of --journal: what is finished is not trained again, and a run that
was stopped goes on, so that the same command can be given until the table is whole (--seconds ends it). Every line has
the words and the machine of its run, so that lines of several machines can be put together.
Differences are paired over seeds, with 95 % intervals of Student's t.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import aptlab
from aptlab.config import compose
from aptlab.models.cost import count_nested_flops, estimate_cost
from aptlab.report.statistics import ConfidenceInterval, compute_interval, compute_paired_interval
from aptlab.report.style import COLOURS, MARKERS, make_two_panels, save_figure, set_heading
from common import RESULTS, describe_load, format_interval, machine, table, versions

WIDTHS = (1.0, 0.5, 0.25, 0.125)
DENSE = "dense"


@dataclass(frozen=True)
class Unit:
    """One run: a dense network of a width, or a nested one (width 1) trained by an objective."""

    kind: str
    width: float
    seed: int

    def list_words(self, hidden: int) -> list[str]:
        """What makes it differ from the others."""
        if self.kind == DENSE:
            return [f"size.hidden={round(self.width * hidden)}", f"seed={self.seed}"]
        widths = ",".join(f"{width:g}" for width in WIDTHS)
        nested = ["ffn=matformer", f"ffn.nested.granularities=[{widths}]"]
        return [*nested, f"objective={self.kind}", f"seed={self.seed}"]

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.kind}-{self.width:g}-{self.seed}"


def list_units(kinds: Sequence[str], seeds: Sequence[int]) -> Iterator[Unit]:
    """All of one seed before the next one, so that a table that is cut short is one of fewer seeds."""
    for seed in seeds:
        yield from (Unit(kind, 1.0, seed) for kind in kinds)
        yield from (Unit(DENSE, width, seed) for width in WIDTHS)


def train_unit(unit: Unit, folder: Path, words: Sequence[str], hidden: int) -> dict[str, Any]:
    """Train it, or the rest of it; its numbers as plain values."""
    started = any((folder / "checkpoints").glob("*.ckpt"))
    others = [word for word in words if unit.kind != DENSE or not word.startswith("size.hidden=")]
    run = aptlab.train([f"ckpt={folder}"] if started else [*others, *unit.list_words(hidden), f"run_dir={folder}"])
    assert run.result is not None, f"{folder} has no result"
    found = run.result.plain()
    losses = {key.removeprefix("val/loss"): value for key, value in found["metrics"].items() if "val/loss" in key}
    made = {
        "losses": losses,
        "tokens": found["tokens"],
        "seconds": round(found["seconds"], 1),
        "words": " ".join(words),
    }
    return {**asdict(unit), **made, "machine": f"{machine()}; {versions('aptlab', 'torch')}{describe_load()}"}


def read_journal(path: Path) -> list[dict[str, Any]]:
    """Whole lines alone: what a crash cut off is read from its finished run again."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def collect_losses(lines: Sequence[dict[str, Any]], kind: str, width: float) -> dict[int, float | None]:
    """Validation loss of a width by seed."""
    mark = "" if kind == DENSE or width == 1 else f"@{width:g}"
    own = width if kind == DENSE else 1.0
    return {line["seed"]: line["losses"][mark] for line in lines if (line["kind"], line["width"]) == (kind, own)}


def make_rows(lines: Sequence[dict[str, Any]], kinds: Sequence[str], costs: dict[float, float]) -> list[list[str]]:
    """One row for each objective and width: losses, and the paired difference in percent of the dense loss."""
    rows = []
    for kind in kinds:
        for width in WIDTHS:
            nested, dense = collect_losses(lines, kind, width), collect_losses(lines, DENSE, width)
            percent = {
                seed: 100 * (value / other - 1)
                for seed, value in nested.items()
                if value is not None and (other := dense.get(seed)) is not None
            }
            gap = compute_paired_interval(percent, dict.fromkeys(percent, 0.0))
            rows.append(
                [
                    kind,
                    f"{width:g}",
                    f"{costs[width] - 1:+.1%}",
                    format_interval(compute_interval(list(nested.values()))),
                    format_interval(compute_interval(list(dense.values()))),
                    format_interval(gap, 2, "+"),
                    judge_gap(gap),
                ]
            )
    return rows


def list_machines(lines: Sequence[dict[str, Any]]) -> list[str]:
    """Each machine once, with the least and the greatest load that its runs were made beside."""
    loads: dict[str, list[str]] = {}
    for line in lines:
        name, loaded, load = line["machine"].partition("load average ")
        loads.setdefault(name + loaded, []).append(load.partition(" ")[0])
    return [
        name + (f"{min(found, key=float)} to {max(found, key=float)}" if found[0] else "")
        for name, found in loads.items()
    ]


def judge_gap(gap: ConfidenceInterval | None, limit: float = 2.0) -> str:
    """Whether the loss is within `limit` percent of the dense one's, by the whole interval."""
    if gap is None or gap.half is None:
        return "too few seeds"
    return "yes" if gap.high <= limit else "no" if gap.low > limit else "not separated"


def draw_losses(lines: Sequence[dict[str, Any]], kinds: Sequence[str], path: Path, *, title: str) -> Path:
    """Loss by width, nested and dense, with intervals; and the difference in nats."""
    figure, left, right = make_two_panels(title)
    set_heading(left, "validation loss by width (nats per token)")
    set_heading(right, "nested minus dense of the same width (nats)")
    for number, kind in enumerate((DENSE, *kinds)):
        style = {"color": COLOURS[number], "marker": MARKERS[number], "markersize": 5, "linewidth": 1.5, "capsize": 3}
        found = [compute_interval(list(collect_losses(lines, kind, width).values())) for width in WIDTHS]
        gaps = [
            compute_paired_interval(collect_losses(lines, kind, width), collect_losses(lines, DENSE, width))
            for width in WIDTHS
        ]
        for axes, values in ((left, found), (right, gaps if kind != DENSE else [])):
            pairs = [(width, value) for width, value in zip(WIDTHS, values) if value]
            if pairs:
                x, y = [width for width, _ in pairs], [value.mean for _, value in pairs]
                axes.errorbar(x, y, [value.half or 0 for _, value in pairs], label=kind, **style)
    right.axhline(0, color="#8a8a8a", linewidth=1)
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_xticks(WIDTHS, [f"{width:g}" for width in WIDTHS])
        axes.set_xlabel("share of the hidden units")
    left.legend(frameon=False, fontsize=8)
    return save_figure(figure, path)


def count_costs(words: Sequence[str]) -> dict[float, float]:
    """FLOPs of the feed-forwards of each width, as a share of the whole, by the counter."""
    import torch

    config = compose("train", [*words, "ffn=matformer", "vocab=257"])
    with torch.device("meta"):
        net = aptlab.build(*words, "ffn=matformer", "vocab=257")
    context, whole = config.cfg.context, count_nested_flops(net)
    full = estimate_cost(net, context).forward
    return {width: 1 - (full - estimate_cost(net, context, width).forward) / whole for width in WIDTHS}


def write_report(lines: Sequence[dict[str, Any]], path: Path) -> None:
    """The table and the figure of a journal."""
    kinds = [kind for kind in dict.fromkeys(line["kind"] for line in lines) if kind != DENSE]
    seeds = sorted({line["seed"] for line in lines})
    said = list(dict.fromkeys(line["words"] for line in lines))
    if len(said) != 1:
        sys.exit(
            f"the journal has runs of {len(said)} kinds of words; keep those of one table in a --journal of its own"
        )
    (words,) = said
    rows = make_rows(lines, kinds, count_costs(words.split()))
    head = ["objective", "width", "ffn FLOPs", "nested loss", "dense loss", "more loss, %", "within 2 %"]
    tokens = sorted({line["tokens"] for line in lines})
    seconds = {kind: sum(line["seconds"] for line in lines if line["kind"] == kind) / len(seeds) for kind in kinds}
    spent = sum(line["seconds"] for line in lines if line["kind"] == DENSE) / len(seeds)
    text = [
        "# Widths of one nested network, and dense networks of those widths",
        "\n".join(f"- {found}" for found in list_machines(lines)),
        f"`{words}`, {', '.join(f'{count:,}' for count in tokens)} tokens a run, seeds {', '.join(map(str, seeds))}. "
        "Losses are nats per token of the validation text; ± is half of a 95 % interval over seeds, and differences "
        "are paired by seed. All runs read the same tokens; a nested one spends the passes of all its widths on them: "
        f"{', '.join(f'{kind} {value:.0f} s' for kind, value in seconds.items())} a seed, and the dense ones of all "
        f"widths {spent:.0f} s together.",
        table(head, rows),
        f"![Loss by width]({path.stem}.png)",
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n\n".join(text) + "\n", encoding="utf-8")
    draw_losses(lines, kinds, path.with_suffix(".png"), title=words.partition(" evals")[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", default="tiny")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--objectives", nargs="+", default=["elastic"])
    parser.add_argument("--runs", type=Path, default=Path("outputs/elastic"))
    parser.add_argument("--journal", type=Path, default=RESULTS / "elastic.jsonl")
    parser.add_argument("--report", action="store_true", help="train nothing")
    parser.add_argument("--out", type=Path, default=RESULTS / "elastic.md")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no run after this long")
    parser.add_argument("words", nargs="*", help="overrides of every run, after --")
    args = parser.parse_args()
    if args.report:
        write_report(read_journal(args.journal), args.out)
        return
    words = [f"size={args.size}", f"trainer.max_steps={args.steps}", "evals=none", "logger=csv", *args.words]
    words.append(f"validate.every={args.steps}")
    hidden = int(compose("train", words).cfg.size.hidden)
    args.runs.mkdir(parents=True, exist_ok=True)
    begun, lines = time.monotonic(), [line for line in read_journal(args.journal) if line["words"] == " ".join(words)]
    done = {(line["kind"], line["width"], line["seed"]) for line in lines}
    train = partial(train_unit, words=words, hidden=hidden)
    for unit in list_units(args.objectives, args.seeds):
        if (unit.kind, unit.width, unit.seed) in done or time.monotonic() - begun > args.seconds:
            continue
        lines.append(train(unit, args.runs / unit.name))
        with open(args.journal, "a") as file:
            file.write(json.dumps(lines[-1]) + "\n")
    write_report(lines, args.out)
    print(args.out.read_text())


if __name__ == "__main__":
    main()
