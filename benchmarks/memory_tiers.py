"""What each memory remembers beyond its window: facts of the first window, asked for windows later.

A row is several windows. The first one holds facts, each a key and its values, among filler; every window ends with
questions about some of them, each fact asked once: the key is given, the values are to be predicted. The questions of
the first window are about the window itself; those of the last one are answered by what was kept, or by chance.

    recall    4 facts of 1 value a window        passkey   1 fact of 4 values        copy   1 fact of 10 values

Every option of group memory is measured against no memory and against one window over the whole row, with the same
tokens and, by a wider feed-forward layer, the same number of parameters. Runs are kept in results/memory_tiers.jsonl
and not repeated, so that a table may be measured in parts.

    python benchmarks/memory_tiers.py --tasks recall                     minutes on a CPU
    python benchmarks/memory_tiers.py --device cuda --jobs 14 --steps 3000 --dim 128 --batch 128 --lr 1e-3
    python benchmarks/memory_tiers.py --table                            only write the table anew
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import shutil
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import aptlab
from aptlab.config.files import read_config_file
from aptlab.config.search_path import read_option_index
from aptlab.data.rows import SegmentPlan
from aptlab.nn.segments import count_state_bytes
from aptlab.objectives import IGNORE, compute_token_nll
from aptlab.optim import AdamW
from aptlab.report.statistics import compute_interval, compute_paired_interval
from aptlab.tasks.segments import SegmentReader
from common import RESULTS, describe_load, machine, table, write

KEYS, VALUES, FILLER = 64, 32, 16
VOCAB = KEYS + VALUES + FILLER
WHOLE, NONE, LINEAR = "one window", "none", "attention=linear"
HEAD = [
    "memory",
    "parameters",
    "in the window %",
    "beyond it %",
    "against none",
    "nats",
    "tokens/s",
    "state KB",
]


@dataclass(frozen=True)
class Recall:
    """Facts of `values` tokens after their key; `asked` of them at the end of each window."""

    asked: int
    values: int

    def make_batch(self, rows: int, *, windows: int, window: int, seed: tuple[int, ...]) -> dict[str, torch.Tensor]:
        """Rows [B, windows * window]; targets are the values of questions, all others are IGNORE."""
        rng, count, size = np.random.default_rng(seed), self.asked * windows, 1 + self.values
        block_BW = KEYS + VALUES + rng.integers(FILLER, size=(rows, windows * window + 1))
        keys_BF = rng.permuted(np.tile(np.arange(KEYS), (rows, 1)), axis=1)[:, :count]
        facts_BFS = np.concatenate(
            [keys_BF[..., None], KEYS + rng.integers(VALUES, size=(rows, count, self.values))], 2
        )
        free = window - self.asked * size - count * size
        if free < 0:
            raise SystemExit(f"--window {window} is too short for {count} facts of {size} tokens and their questions")
        # Facts stand in the first window in their order, with filler of random lengths between them.
        gaps_BF = np.sort(rng.integers(free + 1, size=(rows, count)), axis=1)
        starts_BF = gaps_BF + np.arange(count) * size
        row_B = np.arange(rows)[:, None, None]
        block_BW[row_B, starts_BF[..., None] + np.arange(size)] = facts_BFS
        targets_BW = np.full((rows, windows * window), IGNORE)
        order_BF = rng.permuted(np.tile(np.arange(count), (rows, 1)), axis=1)
        for number in range(windows):
            asked = np.take_along_axis(facts_BFS, order_BF[:, number * self.asked :, None][:, : self.asked], 1)
            first = (number + 1) * window - self.asked * size
            places = first + np.arange(self.asked * size).reshape(self.asked, size)
            block_BW[:, places] = asked
            targets_BW[:, places[:, :-1]] = asked[:, :, 1:]
        arrays = {"tokens": block_BW[:, :-1], "targets": targets_BW}
        arrays["positions"] = np.broadcast_to(np.arange(windows * window), arrays["tokens"].shape)
        arrays["segments"] = np.ones_like(arrays["tokens"])
        return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in arrays.items()}


TASKS = {"recall": Recall(4, 1), "passkey": Recall(1, 4), "copy": Recall(1, 10)}


def main() -> None:
    args = parse()
    kept = RESULTS / f"memory_tiers_{args.device}.jsonl"
    path = Path(os.environ["OUT"]) / kept.name if os.environ.get("OUT") else kept  # there every run is kept at once
    if path != kept and kept.is_file():
        shutil.copy(kept, path)
    if not args.table:
        measure_missing(args, path)
    body = "\n\n".join(format_task(name, read_records(path), args) for name in args.tasks)
    written = write(
        f"memory_tiers_{args.device}", "What is remembered beyond the window", explain(args) + body, "torch"
    )
    if path != kept:
        shutil.copy(written, path.parent / written.name)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument(
        "--arms", nargs="+", help=f"options of group memory, as xl or xl,mem_len=99; {WHOLE!r}; {LINEAR}"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--window", type=int, default=64)
    parser.add_argument("--windows", type=int, default=4)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--depth", type=int, default=2)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side")
    parser.add_argument("--table", action="store_true", help="measure nothing")
    args = parser.parse_args()
    longer = [f"xl,mem_len={args.window * (args.windows - 1)}"] if "xl" in list_memories() else []
    args.arms = args.arms or [NONE, WHOLE, *sorted(list_memories() - {NONE}), *longer, LINEAR]
    return args


def list_memories() -> set[str]:
    """The options of group memory."""
    return set(read_option_index().groups.get("memory", {}))


def choose_overrides(arm: str, args: argparse.Namespace) -> list[str]:
    """What builds an arm: sizes of a memory are those of the window, and layers that the model has."""
    common = [f"vocab={VOCAB}", f"context={args.window}", f"size.dim={args.dim}", f"size.depth={args.depth}"]
    common += ["size.heads=4", "size.kv_heads=4", "size.head_dim=null"]
    if arm == LINEAR:
        return [*common, "attention=linear"]
    name, *given = arm.split(",")
    if name not in list_memories() - {NONE}:
        return common
    option = read_config_file(read_option_index().groups["memory"][name].path)
    wanted = {"segment": args.window, "mem_len": args.window, "size": args.window * args.windows}
    wanted |= {"layers": "[-1]"} if option.get("layers") else {}
    wanted |= dict(text.split("=", 1) for text in given)
    return [*common, f"memory={name}", *(f"memory.{key}={value}" for key, value in wanted.items() if key in option)]


def build_equal(arm: str, args: argparse.Namespace, seed: int) -> Any:
    """The network of an arm, its feed-forward layers as wide as gives it the parameters of the largest arm."""
    hidden = 4 * args.dim
    counts = {name: count_parameters(choose_overrides(name, args), hidden) for name in {*args.arms, arm}}
    more = (max(counts.values()) - counts[arm]) / (3 * args.dim * args.depth)
    return aptlab.build(choose_overrides(arm, args), f"size.hidden={hidden + round(more)}", f"seed={seed}")


def count_parameters(overrides: list[str], hidden: int) -> int:
    return sum(weight.numel() for weight in aptlab.build(overrides, f"size.hidden={hidden}").parameters())


def measure_missing(args: argparse.Namespace, path: Path) -> None:
    """Train every arm of every task and seed that the file does not have."""
    jobs = [(task, arm, seed) for task in args.tasks for seed in range(args.seeds) for arm in args.arms]
    done = {read_key(record) for record in read_records(path)}
    jobs = [job for job in jobs if (*job, describe_setting(args)) not in done]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(args.jobs, mp_context=context) as pool, path.open("a") as file:
        for future in as_completed([pool.submit(measure_job, (args, *job)) for job in jobs]):
            record = future.result()
            print(json.dumps(record), file=file, flush=True)
            print({key: record[key] for key in ("task", "arm", "seed", "inside", "beyond", "rate")}, flush=True)


def describe_setting(args: argparse.Namespace) -> str:
    """What makes runs comparable."""
    return (
        f"{args.windows} windows of {args.window} tokens, {args.steps} steps of {args.batch} rows, dim {args.dim}, "
        f"{args.depth} layers, lr {args.lr:g}"
    )


def read_key(record: dict[str, Any]) -> tuple[Any, ...]:
    return record["task"], record["arm"], record["seed"], record["setting"]


def read_records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def measure_job(job: tuple[argparse.Namespace, str, str, int]) -> dict[str, Any]:
    """Train one network and ask it."""
    args, name, arm, seed = job
    torch.set_num_threads(1)
    device, task = torch.device(args.device), TASKS[name]
    net = build_equal(arm, args, seed).to(device).train()
    window = args.window * (args.windows if arm == WHOLE else 1)
    reader = SegmentReader(SegmentPlan(window=window))
    optimizer = AdamW(lr=args.lr).make(net)
    rates = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        [group["lr"] for group in optimizer.param_groups],
        total_steps=args.steps,
        pct_start=0.1,
        cycle_momentum=False,
    )
    warm, begun = min(20, args.steps // 2), 0.0
    for step in range(args.steps):
        if step == warm:
            begun = clock(device)
        batch = make_batch(task, args, (seed, step), device)
        loss = compute_token_nll(reader.read(net, batch, keep=False).logits, batch["targets"])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        rates.step()
    seconds = clock(device) - begun
    tokens = (args.steps - warm) * args.batch * args.windows * args.window
    return {
        "task": name,
        "arm": arm,
        "seed": seed,
        "setting": describe_setting(args),
        "parameters": sum(weight.numel() for weight in net.parameters()),
        "rate": tokens / seconds,
        **ask(net.eval(), reader, task, args, device),
        "machine": machine() + describe_load(),
    }


def make_batch(task: Recall, args: argparse.Namespace, seed: tuple[int, ...], device: torch.device) -> dict[str, Any]:
    batch = task.make_batch(args.batch, windows=args.windows, window=args.window, seed=seed)
    return {name: value.to(device, non_blocking=True) for name, value in batch.items()}


@torch.no_grad()
def ask(
    net: Any, reader: SegmentReader, task: Recall, args: argparse.Namespace, device: torch.device
) -> dict[str, Any]:
    """Share of right values in the first and in the last window, nats of the last, and bytes that a row keeps."""
    right, nats, count, kept = torch.zeros(2), 0.0, 0, 0
    for number in range(8):
        batch = make_batch(task, args, (1 << 30, number), device)
        output, targets = reader.read(net, batch, keep=False), batch["targets"]
        kept = count_state_bytes({key: state for key, state in output.states.items() if key != "positions"})
        hits = (output.logits.argmax(-1) == targets).float()
        parts = (slice(0, args.window), slice(-args.window, None))
        right += torch.stack([hits[:, part].sum() for part in parts]).cpu()
        nats += float(compute_token_nll(output.logits[:, parts[1]], targets[:, parts[1]], "sum"))
        count += int((targets[:, parts[1]] != IGNORE).sum())
    inside, beyond = (right / count).tolist()
    return {"inside": inside, "beyond": beyond, "nats": nats / count, "bytes": kept / args.batch}


def clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def format_task(name: str, records: list[dict[str, Any]], args: argparse.Namespace) -> str:
    """The table of one task: means over seeds with their 95 % intervals."""
    mine = [one for one in records if one["task"] == name and one["setting"] == describe_setting(args)]
    found = {arm: [one for one in mine if one["arm"] == arm] for arm in args.arms}
    base = {one["seed"]: one["beyond"] for one in found.get(NONE, [])}
    rows = []
    for arm, runs in found.items():
        if not runs:
            continue
        more = compute_paired_interval({one["seed"]: one["beyond"] for one in runs}, base) if arm != NONE else None
        rows.append(
            [
                arm,
                f"{runs[0]['parameters']:,}",
                format_interval([100 * one["inside"] for one in runs]),
                format_interval([100 * one["beyond"] for one in runs]),
                "" if more is None else f"{100 * more.mean:+.1f}{format_half(more.half, 100)}",
                format_interval([one["nats"] for one in runs], 2),
                f"{np.mean([one['rate'] for one in runs]):,.0f}",
                f"{runs[0]['bytes'] / 1024:,.1f}",
            ]
        )
    task = TASKS[name]
    head = f"## {name}: {task.asked} of {task.asked * args.windows} facts of {task.values} values a window"
    machines = "".join(f"\n\nmeasured on {one}" for one in sorted({one["machine"] for one in mine}))
    return f"{head}\n\n{table(HEAD, rows)}{machines}"


def format_interval(values: list[float], digits: int = 1) -> str:
    found = compute_interval(values)
    return "diverged" if found is None else f"{found.mean:.{digits}f}{format_half(found.half, 1, digits)}"


def format_half(half: float | None, factor: float = 1.0, digits: int = 1) -> str:
    return "" if half is None else f" ± {factor * half:.{digits}f}"


def explain(args: argparse.Namespace) -> str:
    return (
        f"{describe_setting(args)}; {args.seeds} seeds, ± is the half width of a 95 % interval (t). A guess is right "
        f"in {100 / VALUES:.1f} % and costs {math.log(VALUES):.2f} nats. The last window's facts stand "
        f"{args.windows - 1} windows before it, the first window's in itself. *{NONE}* sees its window alone, "
        f"*{WHOLE}* is attention over the whole row. Gradients go through all windows of a row, but for what a memory "
        "detaches. Parameters are equal by the width of the feed-forward layers; state is what one row keeps between "
        "windows.\n\n"
    )


if __name__ == "__main__":
    main()
