"""The models of benchmarks/runtimes.py: a small decoder a rule, its folders, and the logits of what it may become."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from aptlab.errors import ConfigError
from aptlab.models import Decoder
from aptlab.models.hf import build_tokenizer_files, convert_to_hf, describe_decoder
from aptlab.models.hf.readers import READERS
from aptlab.nn.attention import FullAttention
from aptlab.nn.ffn import GeGLU
from aptlab.nn.positions.rope import (
    NTK,
    Dynamic,
    IRope,
    Linear,
    Llama3,
    LongRoPE,
    NTKByParts,
    Partial,
    PerLayer,
    Proportional,
    Rope,
    Standard,
    YaRN,
)
from aptlab.nn.shape import Shape
from aptlab.nn.smooth import PostNorm
from aptlab.nn.window import SlidingWindow
from aptlab.testing import make_tiny_decoder

ORIGINAL, FACTOR = 64, 4.0
VOCAB, EOS = 257, 256  # bytes and the end of a text
GAIN = 15.0  # weights so wide that logits reach some 14 and attention is not uniform
SHAPE = Shape(dim=64, depth=2, heads=4, kv_heads=2, head_dim=16, hidden=96)
DEEP = Shape(dim=64, depth=4, heads=4, kv_heads=2, head_dim=16, hidden=96)
TO: dict[str, Any] = {"factor": FACTOR, "original_len": ORIGINAL}
YARN = YaRN(**TO)
SHORT = (1.0, 1.05, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6)
LONG = (1.0, 1.2, 1.6, 2.0, 2.6, 3.2, 3.8, 4.0)
NEAR, FAR = Standard(), Linear(base=1_000_000.0, **TO)
GEMMA = {
    "smooth": PostNorm,
    "ffn": partial(GeGLU, approximate="tanh"),
    "attention": partial(FullAttention, qk_norm=True, window=SlidingWindow(size=32, full_every=2)),
}
ROPES: dict[str, Rope] = {
    "standard": Standard(),
    "theta": NTK(**TO),
    "linear": Linear(**TO),
    "dynamic": Dynamic(**TO),
    "yarn": YARN,
    "yarn betas": YaRN(**TO, beta_fast=16.0, beta_slow=2.0),
    "yarn attention_factor": YaRN(**TO, attention_factor=1.0),
    "yarn truncate": YaRN(**TO, truncate=False),
    "llama3": Llama3(**TO),
    "longrope": LongRoPE(**TO, short=SHORT, long=LONG),
    "divisors": NTKByParts(**TO),
    "proportional": Proportional(fraction=0.5, factor=2.0),
    "partial": Partial(fraction=0.5),
    "per layer": PerLayer(rules=(NEAR, FAR)),
    "irope": IRope(inner=Standard(), chunk=None, growth=None, qk_norm=False),
    "yarn in Qwen 2": YARN,
    "yarn in Qwen 3": YARN,
}
PARTS: dict[str, dict[str, Any]] = {
    "per layer": GEMMA,
    "irope": {"shape": DEEP},
    "yarn in Qwen 2": {"attention": partial(FullAttention, bias="qkv")},
    "yarn in Qwen 3": {"attention": partial(FullAttention, qk_norm=True)},
}
PLAIN = "without scaling"  # the note of a rule that was dropped


def build_model(row: str) -> Decoder:
    return make_tiny_decoder(**{"shape": SHAPE, "vocab": VOCAB, "gain": GAIN, "rope": ROPES[row]} | PARTS.get(row, {}))


def list_alternatives(row: str) -> dict[str, Rope]:
    """What a reader may compute instead, by what is said of it."""
    rule = ROPES[row]
    found: dict[str, Rope] = {PLAIN: Standard(base=rule.reference_base)}
    if row == "theta":
        found = {"with theta 10000": Standard()}
    if row == "longrope":
        found |= {
            "its long list at every length": LongRoPE(**TO, short=LONG, long=LONG),
            "its short list at every length": LongRoPE(**TO, short=SHORT, long=SHORT),
        }
    if row == "divisors":  # with the factor that Phi-3's code computes from two lengths
        short, long = rule.divisors(SHAPE.head_sizes()[2])
        found["another factor on queries and keys"] = LongRoPE(**TO, short=short, long=long)
    if row.startswith("yarn "):
        found["default yarn"] = YARN
    if row == "per layer":
        found = {
            "one rule for all layers": FAR,
            "full layers without their scaling": PerLayer(rules=(NEAR, Standard(base=1_000_000.0))),
            "theta 10000 in all layers": Standard(),
        }
    if row == "irope":
        found = {"every layer rotates": Standard()}
    if row == "partial":
        found = {"whole heads rotate": Standard()}
    return found


def compute_logits(net: Decoder, tokens: list[int]) -> np.ndarray:
    with torch.no_grad():
        return net(torch.tensor([tokens])).logits[0].numpy()


def compute_alternatives(row: str, texts: list[list[int]]) -> dict[str, list[np.ndarray]]:
    """Logits of the same weights under other rules."""
    found = {}
    for name, rule in list_alternatives(row).items():
        net = build_model(row)
        net.swap_rope(rule)
        found[name] = [compute_logits(net, tokens) for tokens in texts]
    return found


def write_folders(row: str, root: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """The folder that `aptlab export` writes unasked, and that of each `for=`; refusals by reader.

    Here a form is written even where its declaration refuses it, so that the refusal rests on a run.
    """
    net = build_model(row)
    described = describe_decoder(net, context=ORIGINAL, eos=EOS)
    weights = convert_to_hf(net, described.family, dtype=torch.float32)
    folders, refusals = {"default": root / row / "default"}, {}
    write_folder(folders["default"], described.config, weights)
    for reader in READERS:
        if reader.form is None:
            continue
        try:
            config = reader.form(described.config)
        except ConfigError as error:
            refusals[reader.name] = f"aptlab refuses: {error}"
            continue
        folders[reader.name] = root / row / reader.name
        write_folder(folders[reader.name], config, weights)
    return folders, refusals


def write_folder(folder: Path, config: Mapping[str, Any], weights: dict[str, torch.Tensor]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    texts = {"config.json": json.dumps(config, indent=2)}
    generation = {"eos_token_id": EOS, "pad_token_id": EOS}
    texts |= {"generation_config.json": json.dumps(generation)}
    texts |= build_tokenizer_files({"kind": "bytes"}, longest=int(ORIGINAL * FACTOR))
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
