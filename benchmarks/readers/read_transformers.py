"""transformers, 5 or 4: the folder as AutoModelForCausalLM loads it; eager attention, float32, no cache."""

from __future__ import annotations

from pathlib import Path

import torch
from protocol import Logits, serve
from transformers import AutoModelForCausalLM


def open_folder(folder: Path, work: Path) -> Logits:
    del work
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()

    @torch.no_grad()
    def logits(tokens: list[int]) -> torch.Tensor:
        return model(torch.tensor([tokens]), use_cache=False).logits[0]

    return logits


serve(open_folder)
