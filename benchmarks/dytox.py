"""DyTox beside other methods: split digits, five tasks of two digits, the same steps, rows and seeds for each.

    python benchmarks/dytox.py --out outputs/dytox            tens of minutes on one core; goes on where it was

Each method is a run of `aptlab train`; a run that has its result is not made again, and one that was stopped goes on
from its last checkpoint. All memories hold 20 samples a class, and all methods read as many new rows a step. The
learning rates are those of --lr for DyTox, whose tokens do not take the larger one, and of --plain-lr for the
classifier. The table has means over seeds with 95 % intervals, the figure every seed as a point.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import aptlab
from aptlab.report.statistics import compute_interval
from aptlab.report.style import get_indexed_style, make_two_panels, save_figure, set_heading
from aptlab.runs import find_runs
from common import table, write

HERDING = ["replay=herding", "replay.capacity=200", "replay.policy.by=class"]
RESERVOIR = ["replay=reservoir", "replay.capacity=200"]
METHODS = {
    "fine-tuning": [],
    "ER": RESERVOIR,
    "DER++": [*RESERVOIR, "objective=der_pp"],
    "DyTox": ["task=dytox", *HERDING],
    "DyTox, balanced fine-tuning": ["task=dytox", *HERDING, "callbacks.balanced_tuning.epochs=20"],
    "joint": ["scenario.joint=true"],
    "joint, DyTox": ["task=dytox", "scenario.joint=true"],
}
NUMBERS = ("acc", "forgetting_max", "average_anytime")
HEAD = ["method", *(f"{name} (%)" for name in NUMBERS)]


def make_folder_name(name: str, seed: int) -> str:
    """The folder of one run."""
    return f"{name.lower().replace(', ', '-').replace(' ', '-').replace('+', 'p')}-{seed}"


def train_method(args: argparse.Namespace, name: str, folder: Path, seed: int) -> None:
    """One run, if its folder has no result yet."""
    if (folder / "result.json").exists():
        return
    if (folder / "checkpoints").exists():
        aptlab.train([f"ckpt={folder}"])
        return
    rate = args.lr if "task=dytox" in METHODS[name] else args.plain_lr
    settings = ["scenario=split_digits", f"size={args.size}", f"trainer.max_steps={args.steps}", f"seed={seed}"]
    settings += ["logger=csv", "evals=none", "validate.every=null", f"optim.lr={rate}", f"device={args.device}"]
    settings += ["data.batch=16", "callbacks.checkpoints.every=500", f"run_dir={folder}"]
    aptlab.train([*settings, *METHODS[name]])


def read_numbers(folders: list[Path]) -> dict[str, list[float]]:
    """The numbers of each seed's run."""
    results = [found.result for folder in folders for found in find_runs([folder]) if found.result]
    found = {number: [result.metrics[f"tasks/{number}"] for result in results] for number in NUMBERS}
    return {number: [100 * value for value in values if value is not None] for number, values in found.items()}


def format_interval(values: list[float]) -> str:
    """Mean and half-width of the 95 % interval."""
    found = compute_interval(values)
    assert found is not None
    return f"{found.mean:.1f}" + ("" if found.half is None else f" ± {found.half:.1f}")


def draw_methods(found: dict[str, dict[str, list[float]]], path: Path) -> None:
    """Accuracy and forgetting of every run, a row for each method."""
    figure, left, right = make_two_panels("Split digits, five tasks: every seed is a point")
    for axes, number, heading in (
        (left, "acc", "accuracy at the end (%)"),
        (right, "forgetting_max", "forgetting (%)"),
    ):
        for row, values in enumerate(found.values()):
            style = get_indexed_style(row) | {"linestyle": "none", "marker": "o"}
            axes.plot(values[number], [row] * len(values[number]), **style)
        axes.set_yticks(range(len(found)), list(found) if axes is left else [""] * len(found))
        axes.invert_yaxis()
        set_heading(axes, heading)
    save_figure(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("outputs/dytox"))
    parser.add_argument("--size", default="debug")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--lr", type=float, default=0.001)
    parser.add_argument("--plain-lr", type=float, default=0.003)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    found = {}
    for name in METHODS:
        folders = [args.out / make_folder_name(name, seed) for seed in range(args.seeds)]
        for seed, folder in enumerate(folders):
            train_method(args, name, folder, seed)
        found[name] = read_numbers(folders)
    rows = [[name, *(format_interval(values[number]) for number in NUMBERS)] for name, values in found.items()]
    draw_methods(found, Path(__file__).parent / "results" / "dytox.png")
    about = f"{args.seeds} seeds, {args.steps} steps of 16 new rows, size={args.size}; means with 95 % intervals."
    write("dytox", "DyTox on split digits", f"{about}\n\n{table(HEAD, rows)}", "torch")


if __name__ == "__main__":
    main()
