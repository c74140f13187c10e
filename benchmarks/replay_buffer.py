"""What it costs to offer a sample to a buffer, and what a full one takes: time by capacity and length of the stream.

    python benchmarks/replay_buffer.py            minutes on one core; writes benchmarks/results/replay_buffer.md

A reservoir of c out of n samples places about c (1 + ln n/c) of them; every other one costs a hash and a comparison.
Time is that of the processor, which other processes do not take part in. Bytes are those of a full buffer as Python
counts what it allocates, for each of its samples, beside what `replay.max_bytes` counts.
"""

from __future__ import annotations

import argparse
import time
import tracemalloc

import numpy as np

from aptlab.continual.memory import BYTES, KeyedMemory, Offer
from aptlab.continual.policies import Reservoir
from common import spread, table, write

BATCH = 32


def measure_offers(capacity: int, length: int) -> float:
    """Microseconds of processor time of each sample that is offered to a full buffer."""
    policy, memory = Reservoir(), KeyedMemory(capacity)
    for begin in range(0, capacity, BATCH):
        offer_batch(memory, policy, begin)
    begun = time.process_time()
    for begin in range(capacity, length, BATCH):
        offer_batch(memory, policy, begin)
    return (time.process_time() - begun) / (length - capacity) * 1e6


def measure_bytes(capacity: int) -> float:
    """Bytes of a full buffer for each of its samples."""
    policy = Reservoir()
    tracemalloc.start()
    memory = KeyedMemory(capacity)
    for begin in range(0, capacity, BATCH):
        offer_batch(memory, policy, begin)
    size = tracemalloc.get_traced_memory()[0] / capacity
    tracemalloc.stop()
    return size


def offer_batch(memory: KeyedMemory, policy: Reservoir, begin: int) -> None:
    numbers = np.arange(begin, begin + BATCH)
    memory.add(Offer(numbers, numbers, np.zeros(BATCH, dtype=np.int64), policy.make_keys(numbers, seed=0)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--capacities", type=int, nargs="+", default=[100, 1_000, 10_000])
    parser.add_argument("--turns", type=int, default=3)
    args = parser.parse_args()
    pairs = [(capacity, length) for capacity in args.capacities for length in args.lengths]
    costs: dict[tuple[int, int], list[float]] = {pair: [] for pair in pairs}
    for _ in range(args.turns):
        for pair in pairs:
            costs[pair].append(measure_offers(*pair))
    sizes = {capacity: measure_bytes(capacity) for capacity in args.capacities}
    rows = [[f"{c:,}", f"{n:,}", spread(costs[c, n]), f"{sizes[c]:.0f}"] for c, n in pairs]
    body = "\n\n".join(
        [
            table(["capacity", "stream", "µs a sample", "bytes a sample"], rows),
            f"Median (min to max) of {args.turns} turns; batches of {BATCH}; `replay.max_bytes` counts {BYTES} bytes a "
            f"sample.",
            (__doc__ or "").split("\n", 2)[2].strip(),
        ]
    )
    write("replay_buffer", "The cost of a replay buffer", body, "numpy", "aptlab")


if __name__ == "__main__":
    main()
