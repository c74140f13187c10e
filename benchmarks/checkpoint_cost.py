"""What an atomic, hashed, synced checkpoint costs beside torch.save and Lightning's default, at a 500 MB state.

Each save runs in a process of its own (memory is measured from its start), in interleaved rounds on one disk.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve()


def state(megabytes: int):
    """Weights and two moments, in tensors of 4 MB, as plain dicts."""
    import torch

    count = megabytes // 12
    tensors = lambda seed: [torch.full((1 << 20,), float(seed + i)) for i in range(count)]  # noqa: E731
    moments = {i: {"exp_avg": a, "exp_avg_sq": b} for i, (a, b) in enumerate(zip(tensors(1), tensors(2)))}
    return {"state_dict": {f"w{i}": w for i, w in enumerate(tensors(0))}, "optimizer_states": [{"state": moments}]}


def torch_save(content, path: Path) -> None:
    import torch

    torch.save(content, path)


def torch_save_fsync(content, path: Path) -> None:
    import torch

    with open(path, "wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())


def lightning(content, path: Path) -> None:
    from lightning.fabric.plugins.io import TorchCheckpointIO

    TorchCheckpointIO().save_checkpoint(content, path)


def aptlab(content, path: Path) -> None:
    from aptlab.checkpoint import save_checkpoint

    save_checkpoint(content, path)


WAYS = {
    "torch.save": torch_save,
    "torch.save + fsync": torch_save_fsync,
    "Lightning TorchCheckpointIO": lightning,
    "aptlab": aptlab,
}


def child(way: str, megabytes: int, folder: Path) -> None:
    import torch

    torch.set_num_threads(1)
    content, path = state(megabytes), folder / "step-00000001.ckpt"
    WAYS[way]({"w": torch.zeros(10)}, folder / "step-00000000.ckpt")  # imports and first calls
    os.sync()
    before = resident()
    watch = Watch()
    started = time.perf_counter()
    WAYS[way](content, path)
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "extra": watch.peak() - before, "bytes": path.stat().st_size}))


def resident() -> int:
    """Bytes of memory of this process now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


class Watch:
    """The largest resident size until asked; the kernel keeps it (VmHWM, reset at the start)."""

    def __init__(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")

    def peak(self) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def measure(way: str, megabytes: int, parent: Path) -> dict[str, float]:
    folder = Path(tempfile.mkdtemp(dir=parent))
    try:
        command = [sys.executable, str(HERE), "--child", way, "--megabytes", str(megabytes), "--folder", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return json.loads(done.stdout.splitlines()[-1])
    finally:
        shutil.rmtree(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--folder", default=tempfile.gettempdir(), help="disk to measure on")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return child(args.child, args.megabytes, Path(args.folder))
    seen: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for round_ in range(args.rounds):
        names = list(WAYS)
        for way in names[round_ % len(names) :] + names[: round_ % len(names)]:
            seen[way].append(measure(way, args.megabytes, Path(args.folder)))
    report(seen, args)
    return None


def report(seen: dict[str, list[dict[str, float]]], args: argparse.Namespace) -> None:
    import torch  # noqa: F401

    from common import spread, table, write

    base = [run["seconds"] for run in seen["torch.save"]]
    rows = []
    for way, runs in seen.items():
        seconds = [run["seconds"] for run in runs]
        ratio = statistics.median(seconds) / statistics.median(base)
        best = min(seconds) / min(base)
        extra = max(run["extra"] for run in runs) / 1e6
        rows.append([way, spread(seconds), f"{ratio:.2f}", f"{best:.2f}", f"{extra:.0f}"])
    head = ["save", "seconds: median (min to max)", "x torch.save, medians", "x, minima", "extra memory, MB (most)"]
    size = seen["aptlab"][0]["bytes"] / 1e6
    promise = (
        "`aptlab` writes a temporary file in the same folder, hashes it (sha256) on the way, syncs file and folder to "
        "the disk, and writes a manifest; the others do none of this but what their name says. Only the second and the "
        "last are safe on the disk when they return. Lightning writes through a copy in memory."
    )
    body = f"A state of {size:,.0f} MB, {args.rounds} interleaved rounds.\n\n{table(head, rows)}\n\n{promise}"
    write("checkpoint_cost", "Cost of a checkpoint", body, "torch", "lightning", "aptlab")


if __name__ == "__main__":
    main()
