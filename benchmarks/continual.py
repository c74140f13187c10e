"""What methods keep of earlier tasks: split digits, five tasks of two digits, the same steps, rows and seeds for each.

    python benchmarks/continual.py --out outputs/continual            an hour on one core; goes on where it was
    python benchmarks/continual.py --out outputs/continual --jobs 12  so many runs at a time

Each method is a run of `aptlab train`; a run that has its result is not made again, and one that was stopped goes on
from its last checkpoint. All memories hold 20 samples a class, and all methods read as many new rows a step; one with a
memory reads its old rows beside them. Joint training sees all tasks at every step, and is what a network reaches that
need not remember. DyTox has a learning rate of its own, for its tokens do not take the larger one. The schedule is
constant until the last fifth, so that later tasks are not learned at a smaller rate than earlier ones.

The table has means over seeds with 95 % intervals, the figure every seed as a point.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import aptlab
from aptlab.report.statistics import compute_interval
from aptlab.report.style import get_indexed_style, make_two_panels, save_figure, set_heading
from aptlab.runs import find_runs
from common import RESULTS, format_interval, table, write

HERDING = ("replay=herding", "replay.capacity=200", "replay.policy.by=class")
RESERVOIR = ("replay=reservoir", "replay.capacity=200")
TUNED = "callbacks.balanced_tuning.epochs=20"
METHODS = {
    "fine-tuning": (),
    "EWC": ("objective=ewc",),
    "LwF": ("objective=lwf",),
    "ER": RESERVOIR,
    "DER++": (*RESERVOIR, "objective=der_pp"),
    "DyTox": ("task=dytox", *HERDING),
    "DyTox, balanced fine-tuning": ("task=dytox", *HERDING, TUNED),
    "joint": ("scenario.joint=true",),
    "joint, DyTox": ("task=dytox", "scenario.joint=true"),
}
NUMBERS = ("acc", "bwt", "forgetting_max", "average_anytime")
HEAD = ["method", *(f"{name} (%)" for name in NUMBERS), "rows"]


@dataclass(frozen=True)
class Unit:
    """One run: a method, a seed, its folder and the words of all runs."""

    method: str
    seed: int
    folder: Path
    words: tuple[str, ...]


def list_units(args: argparse.Namespace) -> list[Unit]:
    """All of one seed before the next one."""
    words = ("scenario=split_digits", f"size={args.size}", f"trainer.max_steps={args.steps}", f"device={args.device}")
    words += ("schedule=wsd", "logger=csv", "evals=none", "validate.every=null", "data.batch=16")
    words += (f"callbacks.checkpoints.every={max(1, args.steps // 3)}",)
    units = []
    for seed in range(args.seeds):
        for method in args.methods:
            name = method.lower().replace(", ", "-").replace(" ", "-").replace("+", "p")
            rate = args.dytox_lr if "task=dytox" in METHODS[method] else args.lr
            units.append(Unit(method, seed, args.out / f"{name}-{seed}", (*words, f"optim.lr={rate}")))
    return units


def train_unit(unit: Unit) -> None:
    """One run, if its folder has no result yet."""
    if (unit.folder / "result.json").exists():
        return
    if any((unit.folder / "checkpoints").glob("*.ckpt")):
        aptlab.train([f"ckpt={unit.folder}"])
        return
    aptlab.train([*unit.words, *METHODS[unit.method], f"seed={unit.seed}", f"run_dir={unit.folder}"])


def read_numbers(units: list[Unit]) -> dict[str, list[float]]:
    """The numbers of each seed's run, shares as percent."""
    results = [found.result for unit in units for found in find_runs([unit.folder]) if found.result]
    found = {number: [result.metrics[f"tasks/{number}"] for result in results] for number in NUMBERS}
    percent = {number: [100 * value for value in values if value is not None] for number, values in found.items()}
    return {**percent, "rows": [result.tokens for result in results]}


def draw_methods(found: dict[str, dict[str, list[float]]], path: Path) -> None:
    """Accuracy and forgetting of every run, a row for each method."""
    figure, left, right = make_two_panels("Split digits, five tasks: every seed is a point")
    box = left.get_position()
    left.set_position((0.15, box.y0, box.x1 - 0.15, box.height))  # room for the names of methods
    panels = (left, "acc", "accuracy at the end (%)"), (right, "forgetting_max", "forgetting (%)")
    for axes, number, heading in panels:
        for row, values in enumerate(found.values()):
            style = get_indexed_style(row) | {"linestyle": "none", "marker": "o"}
            axes.plot(values[number], [row] * len(values[number]), **style)
        names = [name.replace(", ", "\n") if axes is left else "" for name in found]
        axes.set_yticks(range(len(found)), names)
        axes.invert_yaxis()
        set_heading(axes, heading)
    save_figure(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("outputs/continual"))
    parser.add_argument("--size", default="debug")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--lr", type=float, default=0.003)
    parser.add_argument("--dytox-lr", type=float, default=0.001)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    args = parser.parse_args()
    units = list_units(args)
    with ProcessPoolExecutor(args.jobs, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        list(pool.map(train_unit, units))
    found = {method: read_numbers([unit for unit in units if unit.method == method]) for method in args.methods}
    rows = [
        [
            method,
            *(format_interval(compute_interval(values[number]), 1) for number in NUMBERS),
            f"{values['rows'][0]:,}",
        ]
        for method, values in found.items()
    ]
    draw_methods(found, RESULTS / "continual.png")
    about = f"{args.seeds} seeds, {args.steps:,} steps of 16 new rows, size={args.size}, "
    about += f"learning rate {args.lr:g} (DyTox {args.dytox_lr:g}), schedule=wsd; means with 95 % intervals over seeds."
    body = f"{about}\n\n{table(HEAD, rows)}\n\n![Accuracy and forgetting of every run](continual.png)"
    write("continual", "Split digits: what is kept of earlier tasks", body, "torch")


if __name__ == "__main__":
    main()
