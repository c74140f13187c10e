"""Rotation of queries and keys beside Liger, torch.compile and transformers: time, bandwidth, share of a device copy.

Every arm does the same work in one run: q and k of one layer in bfloat16, projected apart for the peers, as Liger likes
it best: it writes over them, which ours does where it is asked to. They are given cosines and sines made before; ours
makes them from positions.
Caches are flushed before every timed call, and the device waits until the host has asked for all of it, so that what
is timed is the device; the host's own time for a forward call stands in a column beside it. Times are medians.

    python benchmarks/rotary_kernel.py                      the table
    python benchmarks/rotary_kernel.py --sweep forward      tiles of the kernel, or backward
    … --tokens 2048 131072                                  these lengths alone
"""

from __future__ import annotations

import argparse
import functools
import os
import shutil
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from aptlab.nn.positions.rope import Standard
from aptlab.nn.positions.rotary import RotaryEmbedding
from aptlab.ops.rotary_heads import HeadNorm, RotationArgs, rotate_heads, rotate_heads_, rotate_heads_reference
from aptlab.ops.triton import rotary as kernel
from aptlab.ops.triton.tiles import Tile
from common import table, write

SHAPES = [  # T H K D
    (2048, 8, 2, 64),
    (65536, 12, 4, 64),
    (8192, 32, 8, 128),
    (16384, 32, 8, 128),
    (131072, 32, 8, 128),
    (32768, 16, 8, 256),
]
FORWARD = [None, *(Tile(heads, warps) for heads in (2, 4, 8, 16) for warps in (1, 2, 4, 8))]  # None: its own
SIZES = [(8, 4, 4), (8, 4, 6), (8, 4, 8), (4, 2, 10), (4, 2, 14), (4, 2, 16), (8, 2, 8), (8, 2, 12)]
SIZES += [(4, 1, 16), (4, 1, 24), (8, 1, 12), (8, 1, 16), (2, 1, 24), (16, 4, 4), (16, 8, 2), (4, 4, 8), (2, 2, 12)]
BACKWARD = [Tile(*sizes) for sizes in SIZES]  # heads, warps, programs
SWEEP = [(layout, where) for layout in ("half", "interleaved") for where in (None, "before", "after")]
Arm = Callable[[], object]


class Work:
    """Queries and keys of one layer, with weights of their norms, and cosines as Hugging Face shapes them."""

    def __init__(self, tokens: int, heads: int, kv_heads: int, head_dim: int) -> None:
        torch.manual_seed(0)
        self.tokens, self.heads, self.kv_heads, self.head_dim = tokens, heads, kv_heads, head_dim
        size = (1, tokens, heads + kv_heads, head_dim)
        self.qk = torch.randn(size, device="cuda", dtype=torch.bfloat16)
        self.q, self.k = (part.contiguous() for part in self.qk.split([heads, kv_heads], dim=2))
        self.weight = torch.rand(2, head_dim, device="cuda", dtype=torch.bfloat16) + 0.5
        self.positions = torch.arange(tokens, device="cuda").unsqueeze(0)
        rotary = RotaryEmbedding(Standard(), head_dim=head_dim).cuda()
        self.tables = rotary.tables
        angles = rotary.angles(self.positions)
        self.cos, self.sin = (torch.cat((x[:, 0], x[:, 0]), -1).to(torch.bfloat16) for x in (angles.cos, angles.sin))
        self.bytes = 2 * self.qk.nbytes

    def rotation(self, layout: str = "half", where: str | None = None) -> RotationArgs:
        norm = None if where is None else HeadNorm(self.weight if where == "before" else None, 1e-6, where)
        return RotationArgs(self.positions, self.tables, self.heads, layout, norm)

    def ours(self, layout: str = "half", where: str | None = None) -> Arm:
        rotation = self.rotation(layout, where)
        return lambda: rotate_heads(self.qk.transpose(1, 2), rotation)

    def in_place(self, layout: str) -> Arm:
        rotation, qk = self.rotation(layout), self.qk.clone()
        return lambda: rotate_heads_(qk.transpose(1, 2), rotation)

    def views(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self.q.transpose(1, 2), self.k.transpose(1, 2)


def plain(work: Work) -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    return lambda q, k: apply_rotary_pos_emb(q, k, work.cos, work.sin)


def normed(work: Work) -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    rope, size = plain(work), (work.head_dim,)

    def run(q: torch.Tensor, k: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return rope(F.rms_norm(q, size, work.weight[0], 1e-6), F.rms_norm(k, size, work.weight[1], 1e-6))

    return run


def after(work: Work) -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    rope, size = plain(work), (work.head_dim,)

    def run(q: torch.Tensor, k: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        q, k = rope(q, k)
        return F.rms_norm(q, size, None, 1e-6), F.rms_norm(k, size, None, 1e-6)

    return run


def liger(work: Work) -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    from liger_kernel.transformers.rope import liger_rotary_pos_emb

    return lambda q, k: liger_rotary_pos_emb(q, k, work.cos, work.sin)


def liger_normed(work: Work) -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    from liger_kernel.transformers.functional import liger_rms_norm

    rope = liger(work)

    def run(q: torch.Tensor, k: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        q, k = (x.transpose(1, 2) for x in (q, k))  # as they lie in memory
        q, k = liger_rms_norm(q, work.weight[0], 1e-6), liger_rms_norm(k, work.weight[1], 1e-6)
        return rope(q.transpose(1, 2), k.transpose(1, 2))

    return run


def peers(work: Work) -> dict[str, dict[str, Callable[..., tuple[torch.Tensor, torch.Tensor]]]]:
    """Peers of each kind of work."""
    torch._dynamo.reset()
    return {
        "rope": {"transformers": plain(work), "torch.compile": torch.compile(plain(work)), "Liger": liger(work)},
        "norm, rope": {
            "transformers": normed(work),
            "torch.compile": torch.compile(normed(work)),
            "Liger": liger_normed(work),
        },
        "rope, norm": {"transformers": after(work), "torch.compile": torch.compile(after(work))},
    }


KINDS = {"rope": None, "norm, rope": "before", "rope, norm": "after"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweep", choices=["forward", "backward"])
    parser.add_argument("--tokens", type=int, nargs="+", choices=[shape[0] for shape in SHAPES])
    args = parser.parse_args()
    shapes = [shape for shape in SHAPES if args.tokens is None or shape[0] in args.tokens]
    if args.sweep:
        sweep(shapes, sweep_forward if args.sweep == "forward" else sweep_backward)
        return
    rows = [row for shape in shapes for row in measure(Work(*shape))]
    head = ["T, H/K, D", "work", "arm", "forward ms", "TB/s", "of copy", "host µs", "both ways ms", "of copy twice"]
    body = table(head, rows) + (
        "\n\nTB/s counts q and k read and written once, whatever the arm really moves. A copy of the same bytes on the "
        "same device is the limit; `of copy` is its time over the arm's. Both ways, forward and backward, is held "
        "against two copies. `in place` writes over q and k, which is for inference, so there is only forward; Liger "
        "writes over them both ways. Times are the device's own: it waits until the host has asked for the whole call. "
        "`host µs` is what the host takes to ask for a forward, and is the time of a call where the device is faster."
    )
    path = write(
        "rotary_kernel", "Rotation of queries and keys", body, "torch", "triton", "liger_kernel", "transformers"
    )
    if os.environ.get("OUT"):
        shutil.copy(path, Path(os.environ["OUT"]) / path.name)


def measure(work: Work) -> list[list[str]]:
    name = f"{work.tokens:,}, {work.heads}/{work.kv_heads}, {work.head_dim}"
    target = torch.empty_like(work.qk)
    copy = timed(lambda: target.copy_(work.qk))
    rows = [[name, "copy", "torch", f"{copy:.4f}", f"{work.bytes / copy / 1e9:.2f}", "1.00", "", "", ""]]
    everyone = peers(work)
    for kind, where in KINDS.items():
        arms: dict[str, tuple[Arm, Arm | None]] = {}
        for layout in ("half", "interleaved"):
            check_ours(work, layout, where)
            arms[f"aptlab {layout}"] = work.ours(layout, where), backward_ours(work, layout, where)
            if where is None:
                arms[f"aptlab {layout}, in place"] = work.in_place(layout), None
        for label, run in everyone[kind].items():
            check_peer(label, work, run, where)
            arms[label] = (lambda run=run: run(*work.views())), backward_peer(work, run)
        for label, (forward, both) in arms.items():
            once, host, twice = timed(forward), 1e6 * asking(forward), timed(both) if both else None
            back = ["", ""] if twice is None else [f"{twice:.4f}", f"{2 * copy / twice:.2f}"]
            rows.append(
                [name, kind, label, f"{once:.4f}", f"{work.bytes / once / 1e9:.2f}", f"{copy / once:.2f}",
                 f"{host:.0f}", *back]
            )  # fmt: skip
            print(rows[-1], flush=True)
    return rows


def timed(run: Arm, calls: int = 50) -> float:
    """Median milliseconds of the device for one call, its caches flushed before."""
    flush = torch.empty(256 << 20, dtype=torch.int8, device="cuda")
    wait = int(3 * asking(run) * cycles_per_second())
    pairs = []
    with gradients(run):
        for _ in range(calls):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            flush.zero_()
            torch.cuda._sleep(wait)  # while it waits, the host asks for all that is timed
            start.record()
            run()
            end.record()
            pairs.append((start, end))
    torch.cuda.synchronize()
    return statistics.median(start.elapsed_time(end) for start, end in pairs)


def asking(run: Arm, calls: int = 20) -> float:
    """Median seconds that the host takes to ask for one call."""
    times = []
    with gradients(run):
        for _ in range(calls):
            torch.cuda.synchronize()
            started = time.perf_counter()
            run()
            times.append(time.perf_counter() - started)
    torch.cuda.synchronize()
    return statistics.median(times)


@functools.cache
def cycles_per_second() -> float:
    """Of the clock that `_sleep` counts."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    cycles = 50_000_000
    torch.cuda._sleep(cycles)  # the first call loads its kernel
    start.record()
    torch.cuda._sleep(cycles)
    end.record()
    torch.cuda.synchronize()
    return 1e3 * cycles / start.elapsed_time(end)


def gradients(run: Arm) -> torch.set_grad_enabled:
    return torch.set_grad_enabled(getattr(run, "grad", False))


def check_ours(work: Work, layout: str, where: str | None) -> None:
    x, rotation = work.qk.transpose(1, 2), work.rotation(layout, where)
    got = rotate_heads(x, rotation)
    wanted = rotate_heads_reference(x[:, :, :512].double(), rotation._replace(positions=work.positions[:, :512]))
    assert (got[:, :, :512].double() - wanted).abs().max() < 0.04, f"{layout} {where}"
    assert torch.equal(rotate_heads_(x.clone(), rotation), got), f"{layout} {where} in place"


def check_peer(
    label: str, work: Work, run: Callable[..., tuple[torch.Tensor, torch.Tensor]], where: str | None
) -> None:
    """Peers round cosines and norms to bfloat16: near is all that can be asked."""
    q, k = (x.contiguous().transpose(1, 2) for x in work.qk.split([work.heads, work.kv_heads], dim=2))
    got = torch.cat(run(q, k), dim=1)
    wanted = rotate_heads(work.qk.transpose(1, 2), work.rotation("half", where))
    error = ((got.float() - wanted.float()).abs().max() / wanted.abs().max()).item()
    assert error < 0.06, f"{label} differs by {error:.3f} of the largest value"


class Both:
    """Forward and backward of an arm."""

    grad = True

    def __init__(self, inputs: list[torch.Tensor], run: Callable[[], tuple[torch.Tensor, ...]]) -> None:
        self.inputs, self.run = inputs, run
        with torch.enable_grad():
            self.dys = [torch.randn_like(out) for out in run()]

    def __call__(self) -> object:
        return torch.autograd.grad(self.run(), self.inputs, self.dys)


def backward_ours(work: Work, layout: str, where: str | None) -> Arm:
    qk = work.qk.detach().clone().requires_grad_()
    rotation = work.rotation(layout, where)
    inputs = [qk]
    if rotation.norm is not None and rotation.norm.weight is not None:
        weight = rotation.norm.weight.detach().clone().requires_grad_()
        rotation, inputs = rotation._replace(norm=rotation.norm._replace(weight=weight)), [qk, weight]
    return Both(inputs, lambda: (rotate_heads(qk.transpose(1, 2), rotation),))


def backward_peer(work: Work, run: Callable[..., tuple[torch.Tensor, torch.Tensor]]) -> Arm:
    leaves = [x.detach().clone().requires_grad_() for x in (work.q, work.k)]
    return Both(leaves, lambda: run(*(leaf.transpose(1, 2) for leaf in leaves)))


def sweep(shapes: list[tuple[int, int, int, int]], run: Callable[[Work, str, str | None], None]) -> None:
    for shape in shapes:
        work = Work(*shape)
        target = torch.empty_like(work.qk)
        print(f"T {work.tokens:,}, D {work.head_dim}: copy {timed(lambda: target.copy_(work.qk)):.4f} ms", flush=True)  # noqa: B023
        for layout, where in SWEEP:
            if where or run is sweep_forward:  # without a norm, backward is forward
                run(work, layout, where)


def arguments(work: Work, layout: str, where: str | None) -> tuple[Any, ...]:
    """Of the kernel, behind the heads."""
    rotation = work.rotation(layout, where)
    weight = rotation.norm.weight if rotation.norm else None
    how = kernel.KernelSpec(work.heads, layout == "interleaved", kernel.NORMS[where], 1e-6, 1.0)
    return rotation.positions, rotation.tables, None, weight, None, how


def sweep_forward(work: Work, layout: str, where: str | None) -> None:
    """Milliseconds of every tile; each must give the same heads."""
    x, given = work.qk.transpose(1, 2), arguments(work, layout, where)
    right = kernel.rotate_forward(x, *given)
    for tile in FORWARD:
        name = "the kernel's own" if tile is None else f"{tile.heads} heads, {tile.warps} warps"
        error = (kernel.rotate_forward(x, *given, tile=tile).float() - right.float()).abs().max().item()
        assert error <= 0.04, f"{name} differs by {error}"
        once = timed(lambda: kernel.rotate_forward(x, *given, tile=tile))  # noqa: B023
        print(f"  forward  {layout:11} norm={where!s:6} {once:.4f} ms  {name}", flush=True)


def sweep_backward(work: Work, layout: str, where: str | None) -> None:
    x, given = work.qk.transpose(1, 2), arguments(work, layout, where)
    dy = torch.randn_like(x)
    for tile in BACKWARD:
        once = timed(lambda: kernel.rotate_backward(dy, x, *given, tile=tile))  # noqa: B023
        text = f"{tile.heads} heads, {tile.warps} warps, {tile.programs} programs"
        print(f"  backward {layout:11} norm={where!s:6} {once:.4f} ms  {text}", flush=True)


if __name__ == "__main__":
    main()
