"""Bytes of the angles of ten million positions, for one head size: what a module keeps, and what one pass makes.

Measured at 100,000 and 200,000 positions and extended along the line through both, which every peer follows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from aptlab.nn.positions.rope import Standard
from aptlab.nn.positions.rotary import RotaryEmbedding as AptlabRotary
from aptlab.testing.precision import FAR, AllocationCounter, count_module_bytes

HEAD_DIM = 128
SMALL, LARGE = 100_000, 200_000


def bytes_at(positions: int, of: Callable[[int], tuple[int, int]]) -> tuple[float, float]:
    """(kept, made) bytes at `positions`, from two measured sizes."""
    small, large = of(SMALL), of(LARGE)
    slopes = [(b - a) / (LARGE - SMALL) for a, b in zip(small, large, strict=True)]
    return tuple(a + slope * (positions - SMALL) for a, slope in zip(small, slopes, strict=True))  # type: ignore[return-value]


def counted(module: Any, call: Callable[[], Any]) -> tuple[int, int]:
    with torch.no_grad(), AllocationCounter() as made:
        call()
    return count_module_bytes(module), made.bytes


def aptlab(tokens: int) -> tuple[int, int]:
    rotary, places = AptlabRotary(Standard(), head_dim=HEAD_DIM), torch.arange(tokens).unsqueeze(0)
    return counted(rotary, lambda: rotary.angles(places))


def transformers(tokens: int) -> tuple[int, int]:
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    config = LlamaConfig(hidden_size=HEAD_DIM, num_attention_heads=1, head_dim=HEAD_DIM)
    rotary, places = LlamaRotaryEmbedding(config), torch.arange(tokens).unsqueeze(0)
    return counted(rotary, lambda: rotary(torch.zeros(1), places))


def rotary_embedding_torch(tokens: int) -> tuple[int, int]:
    from rotary_embedding_torch import RotaryEmbedding

    rotary = RotaryEmbedding(HEAD_DIM)
    return counted(rotary, lambda: rotary(rotary.get_seq_pos(tokens), seq_len=tokens))


def x_transformers(tokens: int) -> tuple[int, int]:
    from x_transformers.x_transformers import RotaryEmbedding

    rotary, places = RotaryEmbedding(HEAD_DIM), torch.arange(tokens)
    return counted(rotary, lambda: rotary(places))


def torchscale(tokens: int) -> tuple[int, int]:
    """One query at the last position: its xPos makes the tables of the whole row for it."""
    from torchscale.component.xpos_relative_position import XPOS

    xpos = XPOS(HEAD_DIM)
    return counted(xpos, lambda: xpos(torch.zeros(1, 1, HEAD_DIM), offset=tokens - 1))


def torchtune(tokens: int) -> tuple[int, int]:
    from torchtune.modules import RotaryPositionalEmbeddings

    rotary = RotaryPositionalEmbeddings(HEAD_DIM, max_seq_len=tokens)
    return count_module_bytes(rotary), 0  # a pass reads the table


NOTES = {
    "aptlab": "two tables; the CUDA kernel reads them and makes no angles",
    "transformers": "angles of all tokens at each pass",
    "rotary-embedding-torch": "a cache of 8,192 positions; angles of longer rows at each call",
    "x-transformers": "angles of all tokens at each pass, also to decode one",
    "torchscale": "for one query at the last position, in each layer",
    "torchtune": "a table of max_seq_len positions",
}


def memory_rows(projects: list[str]) -> list[list[str]]:
    """One row per project that is here."""
    rows = []
    for project in projects:
        of = globals()[project.replace("-", "_")]
        kept, made = bytes_at(FAR, of)
        rows.append([project, size(kept), size(made), NOTES[project]])
    return rows


def size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count:.0f} B"
