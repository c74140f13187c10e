"""A branch joins the stream and an RMS norm reads the sum: the kernel beside a copy, and whole training steps.

    python benchmarks/smooth_norm.py                     both tables, in bfloat16
    python benchmarks/smooth_norm.py --part kernel       the kernel alone; --part step: whole steps alone
    python benchmarks/smooth_norm.py --sweep             tiles of the kernel
    … --part step --compile                              steps of compiled networks

The kernel is held against `copy_` of as many bytes as it must read and write, caches flushed before every timed call,
the device kept waiting until the host has asked for the call. A step is forward, backward, clip, fused AdamW and, for
smooth=memory, what its callback does. All networks are there from the beginning and take turns of a few steps, so that
each ratio is of two turns that follow one another; its interval is over the rounds.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from aptlab.callbacks.smoothing import collect_spikes
from aptlab.config import build, compose
from aptlab.nn.smooth import MemorySmooth, SketchTeacher, fused, plain
from aptlab.ops import smooth_norm as op
from aptlab.ops import spikes
from aptlab.ops.triton import smooth_norm as kernel
from aptlab.report.statistics import ConfidenceInterval, compute_interval
from common import table, write
from rotary_kernel import Both, timed

ROWS, DIMS = (8192, 65536), (768, 1024, 2048, 4096)
PEERS = (768, 4096)  # widths at which others are timed beside the kernel
GATE = op.GateArgs(1.0, 0.5, 0.7, 8.0, math.log1p(math.exp(-4.0)) / 8, 1.0, 0.5, 2e-5)
ARMS = [(smooth, on) for smooth in ("none", "left_spin", "memory") for on in (True, False)]
SWEEP = [kernel.JoinTile(1, warps, programs) for warps, programs in ((1, 16), (2, 8), (2, 12), (4, 4), (4, 6), (4, 8))]
SWEEP += [kernel.JoinTile(1, warps, programs) for warps, programs in ((8, 1), (8, 2), (8, 3), (8, 4), (16, 1), (16, 2))]


class Work:
    """One join of a deep block: stream, branch, the step before and its angle, in bfloat16."""

    def __init__(self, rows: int, dim: int, *, gated: bool) -> None:
        torch.manual_seed(0)
        self.rows, self.dim, self.gated = rows, dim, gated
        new = lambda: torch.randn(1, rows, dim, device="cuda", dtype=torch.bfloat16)  # noqa: E731
        self.u, self.delta = new().requires_grad_(), new().requires_grad_()
        self.weight = torch.ones(dim, device="cuda", requires_grad=True)
        phi = torch.rand(1, rows, 1, device="cuda")
        self.args = op.JoinArgs(weight=self.weight)
        if gated:
            self.args = self.args._replace(gate=GATE, step=new(), phi=phi)
        self.once = self.u.nbytes

    def arms(self) -> dict[str, Callable[[], tuple[torch.Tensor, ...]]]:
        compiled = torch.compile(op.join_norm_reference)

        def run(call: Callable[..., op.JoinOutput]) -> Callable[[], tuple[torch.Tensor, ...]]:
            def join() -> tuple[torch.Tensor, ...]:
                out = call(self.u, self.delta, self.args)
                assert out.normed is not None
                return out.stream, out.normed

            return join

        return {"kernel": run(op.join_norm), "torch.compile": run(compiled), "eager": run(op.join_norm_reference)}

    @property
    def forward_tensors(self) -> int:
        """u, delta, stream, normed; with a gate the step before and after as well."""
        return 6 if self.gated else 4

    @property
    def backward_tensors(self) -> int:
        """Gradients of stream and normed, the stream, gradient of u; with a gate that of delta as well."""
        return 5 if self.gated else 4


def time_copy(size: int) -> float:
    """Milliseconds of a copy that moves as many bytes, read and written together."""
    source = torch.empty(size // 2, dtype=torch.int8, device="cuda")
    target = torch.empty_like(source)
    return timed(lambda: target.copy_(source))


def measure_kernel(work: Work) -> Iterator[list[str]]:
    sizes = [work.forward_tensors * work.once, work.backward_tensors * work.once]
    copies = [time_copy(size) for size in sizes]
    for name, run in work.arms().items():
        if name != "kernel" and (work.dim not in PEERS or work.rows < max(ROWS)):
            continue
        once = timed(run, 20)
        back = timed(Backward(Both([work.u, work.delta, work.weight], run)), 20)
        yield [
            f"{work.rows:,}", f"{work.dim}", "left_spin" if work.gated else "none", name,
            *(x for time_, size, copy in zip((once, back), sizes, copies, strict=True)
              for x in (f"{time_:.4f}", f"{size / time_ / 1e9:.2f}", f"{copy / time_:.2f}")),
        ]  # fmt: skip


class Backward:
    """The gradients of one forward pass, asked for again and again."""

    grad = True

    def __init__(self, both: Both) -> None:
        self.inputs, self.dys = both.inputs, both.dys
        with torch.enable_grad():
            self.outs = both.run()

    def __call__(self) -> object:
        return torch.autograd.grad(self.outs, self.inputs, self.dys, retain_graph=True)


def write_kernel_table() -> str:
    rows = []
    for count in ROWS:
        for dim in DIMS:
            for gated in (False, True):
                torch._dynamo.reset()
                for row in measure_kernel(Work(count, dim, gated=gated)):
                    print(row, flush=True)
                    rows.append(row)
    each = ["ms", "TB/s", "of copy"]
    head = ["rows", "C", "smooth", "arm", *(f"forward {x}" for x in each), *(f"backward {x}" for x in each)]
    return table(head, rows) + (
        "\n\nTB/s counts every tensor once, as the kernel moves it (forward: u, delta, stream, norm, and with a gate "
        "the step before and after; backward: two gradients and the stream in, one or two out), whatever the arm "
        "really moves. `of copy` is the time of a copy of as many bytes over the arm's. Backward times hold the sum of "
        "the weight's gradient over programs and the work of autograd's thread."
    )


def sweep_tiles() -> None:
    for dim in DIMS:
        work = Work(16384, dim, gated=True)
        how = kernel.JoinSpec(True, False, *GATE[:8], 1e-5)
        u, delta, weight = work.u.detach(), work.delta.detach(), work.weight.detach()
        history = work.args.step, work.args.phi
        copies = [time_copy(count * work.once) for count in (6, 5)]
        for tile in SWEEP:
            if not 128 <= dim / tile.warps <= 2048:
                continue

            def forward(tile: kernel.JoinTile = tile) -> kernel.JoinOutputs:
                return kernel.join_forward(u, delta, history, None, weight, how, keep_step=True, tile=tile)  # noqa: B023

            out = forward()
            saved = kernel.SavedJoin(out.stream, out.rstd, out.stats, weight)

            def backward(tile: kernel.JoinTile = tile, saved: kernel.SavedJoin = saved) -> object:
                return kernel.join_backward(saved.stream, delta, saved, how, delta.dtype, tile=tile)  # noqa: B023

            shares = [copy / timed(run, 15) for run, copy in zip((forward, backward), copies, strict=True)]
            print(f"C {dim}: {tile}: {shares[0]:.2f} forward, {shares[1]:.2f} backward of copy", flush=True)


class Arm:
    """One network with its optimizer, which takes turns with the others."""

    def __init__(self, args: argparse.Namespace, smooth: str, on: bool) -> None:
        torch.manual_seed(0)
        words = [f"size={args.size}", f"context={args.context}", f"vocab={args.vocab}", f"smooth={smooth}"]
        self.name, self.on = smooth, on
        self.net = build(compose("train", words).resolved()["model"]).cuda().train()
        self.call: Any = torch.compile(self.net) if args.compile else self.net
        self.optimizer = torch.optim.AdamW(self.net.parameters(), lr=1e-4, betas=(0.9, 0.95), fused=True)
        memories = [m for m in self.net.modules() if isinstance(m, MemorySmooth)]
        self.sites = [f"{m.layer}/{m.site}" for m in memories]
        self.teacher = SketchTeacher([m.sketch for m in memories])
        self.skipped = torch.zeros((), device="cuda")

    def step(self, tokens: torch.Tensor) -> None:
        with torch.autocast("cuda", torch.bfloat16):
            out = self.call(tokens)
            loss = torch.nn.functional.cross_entropy(out.logits.flatten(0, 1), tokens.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.sites:
            self.teacher.update(collect_spikes(self.sites, [out.traces]), self.skipped)

    def take_turn(self, tokens: torch.Tensor, steps: int) -> float:
        """Milliseconds of a step."""
        with switch_kernel(self.on):
            torch.cuda.synchronize()
            started = time.perf_counter()
            for _ in range(steps):
                self.step(tokens)
            torch.cuda.synchronize()
        return 1e3 * (time.perf_counter() - started) / steps


def refuse_kernel(u: torch.Tensor, delta: torch.Tensor) -> bool:
    return False


@contextlib.contextmanager
def switch_kernel(on: bool) -> Iterator[None]:
    """The kernels as they are, or the references in their place."""
    rooms: list[Any] = [op, fused, plain, spikes]
    chosen = op.can_use_kernel
    for room in [] if on else rooms:
        room.can_use_kernel = refuse_kernel
    try:
        yield
    finally:
        for room in rooms:
            room.can_use_kernel = chosen


def write_step_table(args: argparse.Namespace) -> str:
    torch._dynamo.config.recompile_limit = 64  # type: ignore[attr-defined]
    arms = [Arm(args, *arm) for arm in ARMS]
    tokens = torch.randint(args.vocab, (args.batch, args.context), device="cuda")
    times: dict[int, list[float]] = {i: [] for i in range(len(arms))}
    for arm in arms:
        arm.take_turn(tokens, 4)
    for round_ in range(args.rounds):
        order = range(len(arms)) if round_ % 2 == 0 else reversed(range(len(arms)))
        for i in order:
            times[i].append(arms[i].take_turn(tokens, args.steps))
    rows = []
    for i, arm in enumerate(arms):
        ratios = [compare(times[i], times[j]) for j in (0, 1)]
        found = "kernels" if arm.on else "references"
        rows.append([arm.name, found, f"{statistics.median(times[i]):.2f}", *ratios])
    head = ["smooth", "by", "ms a step", "over none by kernels", "over none by references"]
    return table(head, rows) + (
        f"\n\nsize={args.size}, {args.batch} x {args.context} tokens, vocabulary {args.vocab:,}, bf16-mixed, "
        f"{'compiled' if args.compile else 'eager'}; {args.rounds} rounds of {args.steps} steps, all arms in turn, the "
        "order reversed every other round. Ratios are of times of one round, mean and 95 % interval over the rounds, "
        "in percent more. Without kernels the spike memory is written on the host, as on a CPU."
    )


def compare(times: list[float], others: list[float]) -> str:
    """`+0.8 ± 0.2 %`"""
    found: ConfidenceInterval | None = compute_interval([100 * (a / b - 1) for a, b in zip(times, others, strict=True)])
    assert found is not None
    return f"{found.mean:+.2f} ± {found.half or 0.0:.2f} %"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=["kernel", "step", "both"], default="both")
    parser.add_argument("--sweep", action="store_true", help="time tiles of the kernel and write nothing")
    parser.add_argument("--size", default="124m")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--vocab", type=int, default=50304)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=16)
    parser.add_argument("--compile", action="store_true")
    args = parser.parse_args()
    if args.sweep:
        sweep_tiles()
        return
    parts = []
    if args.part != "step":
        parts.append("## The kernel\n\n" + write_kernel_table())
    if args.part != "kernel":
        parts.append("## A training step\n\n" + write_step_table(args))
    name = "smooth_norm" + ("" if args.part == "both" else f"_{args.part}") + ("_compiled" if args.compile else "")
    path = write(name, "Joins with the norm that follows", "\n\n".join(parts), "aptlab", "torch", "triton")
    if os.environ.get("OUT"):
        shutil.copy(path, Path(os.environ["OUT"]) / path.name)


if __name__ == "__main__":
    main()
