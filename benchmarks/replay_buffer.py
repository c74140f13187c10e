"""What it costs to offer a sample to a buffer, and what a full one takes: time by capacity and length of the stream.

    python benchmarks/replay_buffer.py            a minute on one core

A reservoir of c out of n samples places about c (1 + ln n/c) of them; every other one costs a hash and a comparison.
The last column is the memory of a full buffer as the process measures it, beside what `replay.max_bytes` counts.
"""

from __future__ import annotations

import argparse
import time
import tracemalloc

import numpy as np

from aptlab.continual.memory import BYTES, KeyedMemory, Offer
from aptlab.continual.policies import Reservoir

BATCH = 32


def measure_offers(capacity: int, length: int) -> tuple[float, float]:
    """Microseconds of each offered sample, and bytes of the full buffer for each of its samples."""
    policy = Reservoir()
    tracemalloc.start()
    memory = KeyedMemory(capacity)
    for begin in range(0, capacity, BATCH):
        offer_batch(memory, policy, begin)
    size = tracemalloc.get_traced_memory()[0] / capacity
    tracemalloc.stop()
    begun = time.perf_counter()
    for begin in range(capacity, length, BATCH):
        offer_batch(memory, policy, begin)
    return (time.perf_counter() - begun) / (length - capacity) * 1e6, size


def offer_batch(memory: KeyedMemory, policy: Reservoir, begin: int) -> None:
    numbers = np.arange(begin, begin + BATCH)
    memory.add(Offer(numbers, numbers, np.zeros(BATCH, dtype=np.int64), policy.make_keys(numbers, seed=0)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--capacities", type=int, nargs="+", default=[100, 1_000, 10_000])
    args = parser.parse_args()
    print(f"batches of {BATCH}; counted: {BYTES} bytes a sample")
    print(f"{'capacity':>10}{'stream':>12}{'us/sample':>12}{'bytes/sample':>14}")
    for capacity in args.capacities:
        for length in args.lengths:
            cost, size = measure_offers(capacity, length)
            print(f"{capacity:>10,}{length:>12,}{cost:>12.2f}{size:>14.0f}")


if __name__ == "__main__":
    main()
