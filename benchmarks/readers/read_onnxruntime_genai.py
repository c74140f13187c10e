"""onnxruntime-genai: its model builder (fp32, CPU), and the graph that it writes in onnxruntime, without a past."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
from onnxruntime_genai.models.builder import create_model
from protocol import Logits, serve


def open_folder(folder: Path, work: Path) -> Logits:
    create_model("", str(folder), str(work / "built"), "fp32", "cpu", str(work / "cache"))
    session = onnxruntime.InferenceSession(str(work / "built" / "model.onnx"), providers=["CPUExecutionProvider"])

    def logits(tokens: list[int]) -> np.ndarray:
        ids = np.array([tokens], dtype=np.int64)
        feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "position_ids": np.arange(len(tokens))[None]}
        names = {given.name: given for given in session.get_inputs()}
        for name, given in names.items():
            if name.startswith("past_key_values"):
                feeds[name] = np.zeros((1, given.shape[1], 0, given.shape[3]), dtype=np.float32)
        return session.run(["logits"], {name: feeds[name] for name in names})[0][0]

    return logits


serve(open_folder)
