"""mlx-lm on the CPU, float32: `mlx_lm.utils.load_model` on the folder as it is."""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx
from mlx_lm.utils import load_model
from protocol import Logits, serve

mx.set_default_device(mx.cpu)


def open_folder(folder: Path, work: Path) -> Logits:
    del work
    model, _ = load_model(folder)

    def logits(tokens: list[int]) -> mx.array:
        return model(mx.array([tokens]))[0].astype(mx.float32)

    return logits


serve(open_folder)
