"""onnxruntime-genai: its model builder (fp32, CPU), and the graph that it writes in onnxruntime, without a past."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
from onnxruntime_genai.models.builder import create_model, parse_extra_options
from protocol import Logits, serve

PAST = (2, 0, 16)  # key heads, earlier tokens and dims of every model here


def open_folder(folder: Path, work: Path) -> Logits:
    named = ("", str(folder), str(work / "built"), "fp32", "cpu", str(work / "cache"))
    create_model(*named, **parse_extra_options(*named, []))
    session = onnxruntime.InferenceSession(str(work / "built" / "model.onnx"), providers=["CPUExecutionProvider"])

    def logits(tokens: list[int]) -> np.ndarray:
        ids = np.array([tokens], dtype=np.int64)
        feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "position_ids": np.arange(len(tokens))[None]}
        names = [given.name for given in session.get_inputs()]
        empty = np.zeros((1, *PAST), dtype=np.float32)
        return session.run(["logits"], {name: feeds.get(name, empty) for name in names})[0][0]

    return logits


serve(open_folder)
