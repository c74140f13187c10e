"""What a callback costs a training step: arms with and without it take turns in one process, on one model and text.

A turn is one short training with the callbacks of a run that measure, seed and guard; what is timed is the whole of it,
from before the first decision to the last step, so that probing and sorting are in it. Each round has one turn of every
arm, and an arm is compared with `none` of its own round. Difficulties are measured before, as a run does once per text.

Machines that others use differ more from turn to turn than callbacks cost. So the time inside the hooks of curriculum
and replay is measured as well, as a share of the same turn: probes, decisions and memory, but not the reading
of rows in another order. On a GPU a hook that waits for the device also waits for the step before it.

    python benchmarks/callback_overhead.py                                  tiny model on the CPU
    python benchmarks/callback_overhead.py --device cuda --size 124m --context 1024 --steps 400
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback

from aptlab.config import build
from aptlab.runs import quiet_lightning
from aptlab.training.assemble import assemble_parts
from aptlab.training.plan import plan_training
from common import spread, table, write

# Arm -> overrides; every other arm is compared with `none`. {half}: half the rows of a batch, so that with as many from
# memory a step trains on as many rows as that of any arm.
ARMS: dict[str, list[str]] = {
    "none": [],
    "campus": ["curriculum=campus"],
    "stages": ["curriculum=stages"],
    "sorted": ["curriculum=sorted"],
    "tasks": ["scenario=domains"],
    "replay": ["scenario=domains", "replay=reservoir", "data.batch={half}"],
    "ring": ["scenario=domains", "replay=ring", "data.batch={half}"],
}
KEPT = ("monitor", "smooth_memory", "curriculum", "replay", "consolidation", "seed", "guard")  # callbacks of a turn
TIMED = ("curriculum", "replay")  # whose hooks are timed


class TurnClock(Callback):
    """Seconds of a training; it stands first, so that what others do at the begin is in them."""

    def __init__(self) -> None:
        self.begun = self.seconds = 0.0

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.begun = time.perf_counter()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self.seconds = time.perf_counter() - self.begun


def time_hooks(callback: Callback, spent: list[float]) -> None:
    """Add the seconds of every call of a hook to `spent`."""
    for name in dir(Callback):
        if name.startswith("on_"):
            setattr(callback, name, time_calls(getattr(callback, name), spent))


def time_calls(hook: Any, spent: list[float]) -> Any:
    """The same hook, with the seconds of each call added to `spent`."""

    def call(*given: Any) -> Any:
        begun = time.perf_counter()
        try:
            return hook(*given)
        finally:
            spent.append(time.perf_counter() - begun)

    return call


def train_turn(args: argparse.Namespace, words: list[str], folder: Path) -> tuple[float, list[Callback], float]:
    """Seconds of one training of `steps` steps, its callbacks, and the share of the seconds in timed hooks."""
    settings = [f"size={args.size}", f"context={args.context}", f"data.batch={args.batch}", f"device={args.device}"]
    settings += [f"trainer.max_steps={args.steps}", "logger=csv", "evals=null", "validate=end"]
    plan = plan_training([*settings, *(word.format(half=args.batch // 2) for word in words)])
    parts, clock = assemble_parts(plan), TurnClock()
    nodes = plan.config.cfg.callbacks
    named = {name: build(nodes[name]) for name in KEPT if nodes.get(name) is not None}
    callbacks, spent = [clock, *named.values()], []
    for name in TIMED:
        if name in named:
            time_hooks(named[name], spent)
    trainer = build(plan.config.cfg.trainer)(
        **{**parts.trainer_args, "limit_val_batches": 0},
        logger=False,
        callbacks=callbacks,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        check_val_every_n_epoch=None,
        use_distributed_sampler=False,
        default_root_dir=str(folder),
    )
    trainer.fit(parts.task, datamodule=parts.data)
    return clock.seconds, callbacks, sum(spent) / clock.seconds


def describe_probing(callbacks: list[Callback]) -> str:
    """The share of units that were probed, where a curriculum probes."""
    from aptlab.callbacks.curriculum import CurriculumOrder

    found = [one.probed_share for one in callbacks if isinstance(one, CurriculumOrder) and one.active]
    return f"{found[0]:.1%}" if found else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", default="tiny")
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--arms", nargs="*", default=list(ARMS), choices=list(ARMS))
    args = parser.parse_args()
    arms = ["none", *(name for name in args.arms if name != "none")]
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    hooks: dict[str, list[float]] = {name: [] for name in arms}
    probed: dict[str, str] = {}
    quiet_lightning()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(-1, args.rounds):  # round -1 warms up and fills the caches
            for name in arms if number % 2 else reversed(arms):
                found, callbacks, share = train_turn(args, ARMS[name], Path(folder))
                probed[name] = describe_probing(callbacks)
                if number >= 0:
                    seconds[name].append(found)
                    hooks[name].append(100 * share)
                    print(f"round {number + 1}/{args.rounds}  {name:<12}{found:8.2f} s", flush=True)
    rows = []
    for name in arms:
        ratios = [100 * (one / plain - 1) for one, plain in zip(seconds[name], seconds["none"], strict=True)]
        steps = [1000 * one / args.steps for one in seconds[name]]
        compared = ["", ""] if name == "none" else [spread(hooks[name]), spread(ratios)]
        rows.append([name, spread(steps), *compared, probed[name]])
    body = f"size={args.size}, context {args.context}, batch {args.batch}, {args.device}, {args.steps} steps a turn, "
    body += f"{args.rounds} rounds; median (least to most).\n\n"
    body += table(["arm", "ms per step", "in its hooks, %", "turn longer than none's, %", "tokens probed"], rows)
    write("callback_overhead", "What callbacks cost a training step", body, "aptlab", "torch", "lightning")


if __name__ == "__main__":
    main()
