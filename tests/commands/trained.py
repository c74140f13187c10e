"""A checkpoint as `aptlab train` writes it, made without training, and the text it belongs to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from aptlab.checkpoint import save_checkpoint
from aptlab.config import build, compose
from aptlab.data.tokenizers import ByteTokenizer

CONTEXT = 16


def write_texts(path: Path, *, documents: int = 40, words: int = 60, salt: int = 0) -> Path:
    bodies = (" ".join(f"word{(n * k + salt) % 17}" for k in range(words + n)) for n in range(documents))
    path.write_text("".join(json.dumps({"text": f"Document {n}: {body}"}) + "\n" for n, body in enumerate(bodies)))
    return path


def make_run(root: Path, *, texts: Path, extra: tuple[str, ...] = ()) -> Path:
    """root/train/<date>/<run>/checkpoints/step-00000007.ckpt of a debug model with random weights."""
    overrides = ["size=debug", "source=text", f"source.files='{texts}'", "data.split.val_fraction=0.5"]
    overrides += [f"context={CONTEXT}", "seed=3", *extra]
    config = compose("train", overrides)
    plain: dict[str, Any] = {**config.resolved(), "vocab": 257}
    plain["model"] = {**plain["model"], "vocab": 257}
    torch.manual_seed(0)
    net = build(plain["model"])
    data = build(plain["data"])
    run = root / "train" / "2026-01-02" / "030405-abcd"
    meta = {
        "version": "0",
        "config": plain,
        "overrides": overrides,
        "choices": config.choices,
        "vocab": 257,
        "tokenizer": ByteTokenizer().state(),
        "fingerprint": data.fingerprint,
        "step": 7,
        "run_dir": str(run),
        "wandb_id": None,
    }
    weights = {f"net.{name}": value for name, value in net.state_dict().items()}
    path = run / "checkpoints" / "step-00000007.ckpt"
    save_checkpoint({"state_dict": weights, "global_step": 7, "aptlab": meta}, path)
    return path
