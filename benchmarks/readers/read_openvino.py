"""OpenVINO by optimum-intel on the CPU: exported and run with float32 hints (its defaults are lower)."""

from __future__ import annotations

from pathlib import Path

import torch
from optimum.intel import OVModelForCausalLM
from protocol import Logits, serve

FLOAT32 = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}


def open_folder(folder: Path, work: Path) -> Logits:
    del work
    model = OVModelForCausalLM.from_pretrained(folder, export=True, ov_config=FLOAT32, load_in_8bit=False)

    def logits(tokens: list[int]) -> torch.Tensor:
        ids = torch.tensor([tokens])
        return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0]

    return logits


serve(open_folder)
