"""What methods keep of earlier tasks: split digits, five tasks of two digits, the same steps and seeds for each method.

    python benchmarks/continual.py --out outputs/continual            minutes on one core; goes on where it was

Each method is a run of `aptlab train`; a run that has its result is not made again. The table has means over seeds
with 95 % intervals; joint training sees all tasks at every step, and is what a model reaches that need not remember. A
method with a memory reads its old rows beside the new ones: it trains on more rows a step, and `rows` says how many.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import aptlab
from aptlab.report.statistics import compute_interval
from aptlab.runs import find_runs
from common import table, write

METHODS = {
    "fine-tuning": [],
    "EWC": ["objective=ewc"],
    "LwF": ["objective=lwf"],
    "ER, reservoir of 200": ["replay=reservoir", "replay.capacity=200"],
    "DER++, reservoir of 200": ["replay=reservoir", "replay.capacity=200", "objective=der_pp"],
    "joint": ["scenario.joint=true"],
}
NUMBERS = ("acc", "bwt", "forgetting_max", "average_anytime")
HEAD = ["method", *(f"{name} (%)" for name in NUMBERS), "rows"]


def train_method(args: argparse.Namespace, words: list[str], folder: Path, seed: int) -> None:
    """One run, if its folder has no result yet."""
    if (folder / "result.json").exists():
        return
    settings = ["scenario=split_digits", f"size={args.size}", f"trainer.max_steps={args.steps}", f"seed={seed}"]
    settings += ["logger=csv", "evals=none", "validate.every=null", "optim.lr=0.003", f"device={args.device}"]
    settings += ["data.batch=16", "callbacks.checkpoints.every=100000", f"run_dir={folder}"]
    aptlab.train([*settings, *words])


def summarize_method(folders: list[Path], name: str) -> list[str]:
    """A row of the table."""
    results = [found.result for folder in folders for found in find_runs([folder]) if found.result]
    cells = []
    for number in NUMBERS:
        found = compute_interval([result.metrics.get(f"tasks/{number}") for result in results])
        assert found is not None
        cells.append(f"{100 * found.mean:.1f}" + ("" if found.half is None else f" ± {100 * found.half:.1f}"))
    return [name, *cells, f"{results[0].tokens:,}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("outputs/continual"))
    parser.add_argument("--size", default="debug")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    rows = []
    for name, words in METHODS.items():
        folders = [args.out / f"{name.split(',')[0].replace(' ', '-')}-{seed}" for seed in range(args.seeds)]
        for seed, folder in enumerate(folders):
            train_method(args, words, folder, seed)
        rows.append(summarize_method(folders, name))
    about = f"{args.seeds} seeds, {args.steps} steps of 16 new rows, size={args.size}; means with 95 % intervals."
    write("continual", "Split digits: what is kept of earlier tasks", f"{about}\n\n{table(HEAD, rows)}", "torch")


if __name__ == "__main__":
    main()
