"""Making a rotation's tables, alone and with other processes beside it, as a search on several GPUs of a host does.

    python benchmarks/rotary_tables.py --processes 1 2

The other arm takes every cosine and sine anew by torch, with its thread per core. A process makes the tables of
LongRoPE2 (two regimes) for heads of 64; times are medians of all its calls, of the slowest process.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable

import torch

from aptlab.nn.positions.rope import LongRoPE2
from aptlab.nn.positions.rotary import STEP, RotaryEmbedding
from common import table, write

RULE, HEAD_DIM, CALLS = LongRoPE2(base=10_000.0, original_len=512, factor=8), 64, 50


def ours() -> torch.Tensor:
    return RotaryEmbedding(RULE, head_dim=HEAD_DIM).tables


def directly() -> torch.Tensor:
    steps_N1 = torch.arange(STEP, dtype=torch.float64).unsqueeze(1)
    parts = []
    for frequencies in RULE.regimes(HEAD_DIM):
        theta_P = torch.tensor(frequencies, dtype=torch.float64)
        hi, lo = steps_N1 * STEP * theta_P, steps_N1 * theta_P
        parts.append(torch.stack((hi.cos(), hi.sin(), lo.cos(), lo.sin())).float())
    return torch.cat(parts, dim=1)


ARMS: dict[str, Callable[[], torch.Tensor]] = {"aptlab": ours, "torch, all angles": directly}


def timed(arm: str) -> float:
    """Median milliseconds of a call in this process."""
    make, times = ARMS[arm], []
    make()
    for _ in range(CALLS):
        started = time.perf_counter()
        make()
        times.append(1e3 * (time.perf_counter() - started))
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, os.cpu_count() or 1])
    args = parser.parse_args()
    torch.testing.assert_close(ours(), directly(), rtol=0, atol=1e-7)
    rows = []
    for count in args.processes:
        for arm in ARMS:
            with multiprocessing.get_context("spawn").Pool(count) as pool:
                pool.map(abs, range(count), chunksize=1)  # every process has imported what it needs
                slowest = max(pool.map(timed, [arm] * count, chunksize=1))
            rows.append([str(count), arm, f"{slowest:.1f}"])
    write("rotary_tables", "Making a rotation's tables", table(["processes", "arm", "ms"], rows), "torch", "numpy")


if __name__ == "__main__":
    main()
