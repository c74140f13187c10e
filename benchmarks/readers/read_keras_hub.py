"""keras-hub with the torch backend, float32: CausalLM.from_preset on the folder; logits by its tied or own head."""

from __future__ import annotations

import os

os.environ.setdefault("KERAS_BACKEND", "torch")
from pathlib import Path

import keras_hub
import numpy as np
from keras import ops
from protocol import Logits, serve


def open_folder(folder: Path, work: Path) -> Logits:
    del work
    backbone = keras_hub.models.Backbone.from_preset(str(folder), dtype="float32")

    def logits(tokens: list[int]) -> np.ndarray:
        ids = np.array([tokens], dtype="int32")
        states = backbone({"token_ids": ids, "padding_mask": np.ones_like(ids)})
        return ops.convert_to_numpy(backbone.token_embedding(states, reverse=True))[0]

    return logits


serve(open_folder)
