"""onnxruntime on the CPU: the graph that `aptlab export format=onnx` wrote."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
from protocol import Logits, serve


def open_folder(folder: Path, work: Path) -> Logits:
    del work
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])

    def logits(tokens: list[int]) -> np.ndarray:
        return session.run(["logits"], {"tokens": np.array([tokens], dtype=np.int64)})[0][0]

    return logits


serve(open_folder)
