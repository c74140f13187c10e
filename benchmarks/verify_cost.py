"""What verified token caches cost: start-up and step time with checksums and without, at a cache of 1 GB.

One process, in turns: a cache of random tokens is opened with `data.verify` size (sizes alone, as before there were
checksums), auto and full; then batches are made and a model is trained on them, with auto and with size by turns. Each
turn with auto opens the cache afresh, so that all its reads are first reads: the dearest case, and over after one pass.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import statistics
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

CONTEXT, BATCH, VOCAB = 256, 16, 257
WAYS = ("size", "auto", "full")


def write_store(folder: Path, size: int) -> None:
    """A cache whose files have about `size` bytes together, 95 of 100 parts of them training tokens."""
    from aptlab.data.store.meta import write_meta
    from aptlab.data.store.pieces import PIECE
    from aptlab.data.store.writer import SUMS, NumberWriter

    folder.mkdir(parents=True)
    rng, files, sides, sums = np.random.default_rng(0), {}, {}, []
    for side, share in (("train", 0.95), ("val", 0.05)):
        count, document = int(size * share) // 2, 2000
        ends = np.append(np.arange(0, count, document), count)
        numbers = {"tokens": ("<u2", None), "offsets": ("<i8", ends), "sizes": ("<i8", np.diff(ends) - 1)}
        for kind, (dtype, values) in numbers.items():
            writer = NumberWriter(folder / f"{side}.{kind}", dtype)
            if values is not None:
                writer.write(values)
            for at in range(0, count if values is None else 0, 1 << 23):
                writer.write(rng.integers(0, VOCAB, min(1 << 23, count - at), dtype=np.uint16))
            files[f"{side}.{kind}"] = writer.close(sync=False)
            sums.append(writer.sums)
        sides[side] = {"documents": len(ends) - 1, "tokens": count, "bytes": count, "largest_id": VOCAB - 1}
    writer = NumberWriter(folder / SUMS, "<u4")
    writer.write(np.concatenate(sums))
    about = {"piece": PIECE, **writer.close()}
    meta = {"version": 1, "key": "benchmark", "source": "benchmark", "vocab_size": VOCAB, "dtype": "<u2"}
    write_meta(folder, {**meta, "files": files, "sums": about, "sides": sides})


def measure(act: Callable[[], object]) -> float:
    begun = time.perf_counter()
    act()
    return time.perf_counter() - begun


def make_rows(folder: Path, way: str):
    from aptlab.data.rows import BatchPlan, Packed
    from aptlab.data.store.cache import open_store

    return Packed().make_rows(open_store(folder, verify=way).train, context=CONTEXT, plan=BatchPlan(batch=BATCH))


def time_batches(folder: Path, way: str, count: int, *, warm: bool) -> float:
    """Seconds of one batch; warm: every piece has been compared already."""
    rows = make_rows(folder, way)
    rows.batch(0)
    if warm:
        np.asarray(rows.table.tokens)
    return measure(lambda: [rows.batch(number) for number in range(1, count + 1)]) / count


def make_step(size: str) -> Callable[[dict], None]:
    """One step of training as `aptlab train` does it on a CPU: forward, backward, AdamW."""
    import torch

    from aptlab.config import build, compose

    config = compose("train", [f"size={size}", f"context={CONTEXT}", f"vocab={VOCAB}"])
    torch.manual_seed(0)
    net = build(config.resolved()["model"])
    optim = torch.optim.AdamW(net.parameters(), lr=1e-4)

    def step(batch: dict) -> None:
        logits = net(torch.from_numpy(batch["tokens"])).logits
        targets = torch.from_numpy(batch["targets"]).flatten()
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets).backward()
        optim.step()
        optim.zero_grad()

    return step


def time_steps(folder: Path, way: str, step: Callable[[dict], None], count: int) -> float:
    """Seconds of one step, the making of its batch included; the opening of the cache is not."""
    rows = make_rows(folder, way)
    return measure(lambda: [step(rows.batch(number)) for number in range(count)]) / count


def time_hashes(megabytes: int = 64) -> list[list[str]]:
    """GB/s of checksums over pieces of 16 KiB and of 1 MiB, the best of three."""
    data = memoryview(np.random.default_rng(0).bytes(megabytes << 20))
    ways = {
        "crc32 (zlib)": zlib.crc32,
        "adler32 (zlib)": zlib.adler32,
        "sha256": lambda part: hashlib.sha256(part).digest(),
        "blake2b": lambda part: hashlib.blake2b(part).digest(),
    }
    rows = []
    for name, digest in ways.items():
        cells = []
        for piece in (1 << 14, 1 << 20):
            parts = [data[at : at + piece] for at in range(0, len(data), piece)]
            best = min(measure(lambda parts=parts, digest=digest: [digest(part) for part in parts]) for _ in range(3))
            cells.append(f"{len(data) / best / 1e9:.2f}")
        rows.append([name, *cells])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--steps", type=int, default=30, help="steps of a turn")
    parser.add_argument("--size", default="tiny", help="of the model")
    args = parser.parse_args()
    import torch

    from aptlab.data.store.cache import open_store
    from common import spread, table, write

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    root = Path(tempfile.mkdtemp())
    load = [os.getloadavg()[0]]
    try:
        folder = root / "store"
        write_store(folder, args.megabytes * 1_000_000)
        opened: dict[str, list[float]] = {way: [] for way in WAYS}
        batches: dict[str, list[float]] = {name: [] for name in ("size", "auto, first reads", "auto, later reads")}
        steps: dict[str, list[float]] = {"size": [], "auto": []}
        step = make_step(args.size)
        time_steps(folder, "size", step, 3)
        for turn in range(args.turns):
            for way in WAYS if turn % 2 else reversed(WAYS):
                opened[way].append(measure(lambda way=way: open_store(folder, verify=way)))
            for name in batches if turn % 2 else reversed(batches):
                way = name.partition(",")[0]
                batches[name].append(time_batches(folder, way, 300, warm=name.endswith("later reads")))
            for way in steps if turn % 2 else reversed(steps):
                steps[way].append(time_steps(folder, way, step, args.steps))
            load.append(os.getloadavg()[0])
    finally:
        shutil.rmtree(root)
    pairs = [100 * (auto / size - 1) for auto, size in zip(steps["auto"], steps["size"], strict=True)]
    medians = {name: statistics.median(values) for name, values in {**batches, **steps}.items()}
    first = medians["auto, first reads"] - statistics.median(batches["size"])
    whole = statistics.median(steps["size"])
    rows = [[f"opening, verify={way}", f"{spread([1e3 * value for value in opened[way]])} ms"] for way in WAYS]
    rows += [[f"a batch, verify={name}", f"{spread([1e6 * value for value in batches[name]])} µs"] for name in batches]
    rows += [[f"a step, verify={way}", f"{spread([1e3 * value for value in steps[way]])} ms"] for way in steps]
    rows += [["a step, auto against size of the same turn", f"{spread(pairs)} %"]]
    rows += [["first reads of a batch, as a part of a step", f"{100 * first / whole:.2f} %"]]
    body = "\n\n".join(
        [
            table(["what", "median (min to max)"], rows),
            "GB/s of checksums, on one core:",
            table(["checksum", "pieces of 16 KiB", "pieces of 1 MiB"], time_hashes()),
            f"A cache of {args.megabytes:,} MB; {args.turns} turns; batches of {BATCH} rows of {CONTEXT} tokens; model "
            f"size={args.size}, {args.steps} steps a turn, {torch.get_num_threads()} threads. Load of the machine "
            f"meanwhile (1 minute mean): {min(load):.1f} to {max(load):.1f}.",
            (__doc__ or "").split("\n", 2)[2].strip(),
        ]
    )
    write("verify_cost", "The cost of verified token caches", body, "numpy", "torch", "aptlab")


if __name__ == "__main__":
    main()
