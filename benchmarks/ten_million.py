"""Prefill and decode of an irope model at 128 thousand, 1 million and 10 million positions on one GPU.

The model is small and random (its size is in the table): what is measured is time and memory of the position scheme,
not quality. One layer in four attends to everything without rotation, the others to blocks of 8,192 positions, as in
Llama 4. Beside each measurement stands the arithmetic: FLOPs of attention and matrices, bytes of keys and values.

    python benchmarks/ten_million.py                     on a GPU with 40 GB or more
    python benchmarks/ten_million.py --lengths 4096 --device cpu --piece 1024       a dry run
"""

from __future__ import annotations

import argparse
import os
import shutil
import time
from pathlib import Path
from typing import Any

import torch

import aptlab
from aptlab.models.cost import estimate_cost
from common import table, write

HEAD = [
    "positions",
    "prefill s",
    "TFLOP",
    "TFLOP/s",
    "decode ms/token",
    "KV read GB/token",
    "GB/s",
    "KV GB",
    "all-full KV GB",
    "peak GB",
]


def main() -> None:
    args = parse()
    device = torch.device(args.device)
    overrides = ["rope=irope", f"rope.chunk={args.chunk}", "vocab=257", "attention=full"]
    sizes = {"dim": 256, "depth": args.depth, "heads": 2, "kv_heads": 1, "head_dim": 128, "hidden": 1024}
    net = aptlab.build(overrides, [f"size.{key}={value}" for key, value in sizes.items()])
    net = net.to(device, torch.bfloat16 if device.type == "cuda" else torch.float32).eval()
    rows = []
    for length in args.lengths:
        rows.append(measure(net, length, args))
        print(rows[-1], flush=True)
    parameters = estimate_cost(net, args.lengths[0]).parameters
    body = table(HEAD, rows) + "\n\n" + explain(net, parameters, args)
    path = write(f"ten_million_{device.type}", "An irope model at up to ten million positions", body, "torch", "aptlab")
    if os.environ.get("OUT"):
        shutil.copy(path, Path(os.environ["OUT"]) / path.name)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[131_072, 1_048_576, 10_000_000])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--chunk", type=int, default=8192)
    parser.add_argument("--piece", type=int, default=65_536, help="tokens read at a time")
    parser.add_argument("--decode-only", action="store_true", help="random keys instead of a prompt")
    parser.add_argument("--decode", type=int, default=32, help="tokens written and timed")
    return parser.parse_args()


@torch.inference_mode()
def measure(net: Any, length: int, args: argparse.Namespace) -> list[str]:
    device = net.embed.weight.device
    generator = torch.Generator(device="cpu").manual_seed(length)
    tokens = torch.randint(257, (1, length), generator=generator)
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    net(tokens[:, : args.chunk].to(device))  # kernels are loaded before the clock starts
    cache = net.new_cache(1, length + args.decode + 2)
    prefill, logits = (filled if args.decode_only else prompt_read)(net, tokens, cache, args)
    assert logits.isfinite().all()
    for _ in range(2):  # decoding has kernels of its own
        logits = net(logits.argmax(-1), cache=cache).logits
    begin = clock(device)
    for _ in range(args.decode):
        logits = net(logits.argmax(-1), cache=cache).logits
    decode = (clock(device) - begin) / args.decode
    assert logits.isfinite().all()
    flop, read = work(net, length, args.chunk), kv_bytes(net, length, args.chunk)
    peak = torch.cuda.max_memory_allocated() / 1e9 if device.type == "cuda" else float("nan")
    full = kv_bytes(net, length, None)
    return [
        f"{length:,}",
        f"{prefill:.2f}",
        f"{flop / 1e12:,.1f}",
        f"{flop / prefill / 1e12:.1f}",
        f"{decode * 1e3:.2f}",
        f"{read / 1e9:.3f}",
        f"{read / decode / 1e9:,.0f}",
        f"{cache.bytes() / 1e9:.3f}",
        f"{full / 1e9:.3f}",
        f"{peak:.2f}",
    ]


def prompt_read(net: Any, tokens: torch.Tensor, cache: Any, args: argparse.Namespace) -> tuple[float, torch.Tensor]:
    """Seconds of reading the prompt in pieces, and the last logits."""
    device = net.embed.weight.device
    logits, begin = tokens.new_zeros(()), clock(device)
    for piece in tokens.split(args.piece, dim=1):
        logits = net(piece.to(device), cache=cache).logits[:, -1:]
    return clock(device) - begin, logits


def filled(net: Any, tokens: torch.Tensor, cache: Any, args: argparse.Namespace) -> tuple[float, torch.Tensor]:
    """Random keys in place of the prompt's, to time decoding alone."""
    for layer in cache.layers:
        layer.keys_BKSD.normal_()
        layer.length = min(
            tokens.shape[1], layer.keys_BKSD.shape[2] // 2 if hasattr(layer, "reach") else tokens.shape[1]
        )
    cache.positions_BS[:] = torch.arange(cache.capacity, device=cache.positions_BS.device)
    cache.length = tokens.shape[1]
    return float("nan"), torch.randn(1, 1, 257, device=net.embed.weight.device)


def clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def reaches(net: Any) -> list[int | None]:
    return [block.attention.window for block in net.blocks]


def work(net: Any, length: int, chunk: int) -> float:
    """FLOPs of reading `length` tokens: 2 per weight and token, 4 · D per head and seen key."""
    heads, _, head_dim = net.shape.head_sizes()
    weights = sum(m.weight.numel() for m in net.modules() if isinstance(m, torch.nn.Linear))
    seen = sum(
        length * (length + 1) / 2 if reach is None else length * (min(chunk, length) + 1) / 2 for reach in reaches(net)
    )
    return 2 * weights * length + 4 * heads * head_dim * seen


def kv_bytes(net: Any, length: int, chunk: int | None) -> int:
    """Bytes of keys and values that one new token reads; chunk None = if all layers saw everything."""
    _, kv_heads, head_dim = net.shape.head_sizes()
    own = [length if reach is None or chunk is None else min(chunk, length) for reach in reaches(net)]
    return sum(2 * kv_heads * head_dim * net.embed.weight.element_size() * tokens for tokens in own)


def explain(net: Any, parameters: int, args: argparse.Namespace) -> str:
    shape, full = net.shape, sum(reach is None for reach in reaches(net))
    scout = 4096 * 10_000_000
    return (
        f"Model: {parameters:,} parameters, {shape.depth} layers ({full} of them without rotation and unlimited), "
        f"{shape.heads} query heads and {shape.kv_heads} key head of {shape.head_dim}, {net.embed.weight.dtype}; "
        f"prompts are read {args.piece:,} tokens at a time.\n\n"
        "TFLOP, KV read and all-full KV are arithmetic; the other columns are measured. Prefill of the unlimited\n"
        "layers grows with the square of the length: 4 · D · heads · T² / 2 each. The same for Llama 4 Scout (48\n"
        f"layers, 12 unlimited, 4,096 bytes per token and layer): {48 * scout / 1e12:.2f} TB of keys and values at\n"
        f"ten million positions if all layers were unlimited, {12 * scout / 1e9:.1f} GB with its schedule."
    )


if __name__ == "__main__":
    main()
