"""Small real parts for tests: a two-layer decoder, a task on it, and rows without a corpus."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aptlab.models import Decoder
from aptlab.nn.ffn import SwiGLU
from aptlab.nn.positions.rope import Rope
from aptlab.nn.shape import Shape
from aptlab.nn.smooth import Plain
from aptlab.optim import AdamW, Cosine
from aptlab.tasks import LanguageTask
from aptlab.testing.tiny import make_decoder

SHAPE = Shape(dim=32, depth=2, heads=2, hidden=48)
VOCAB = 61


def assert_agree(got: Any, expected: Any, rel: float = 1e-12) -> None:
    """As many numbers, each equal to the expected one up to this relative difference."""
    assert len(got) == len(expected)
    np.testing.assert_allclose(np.array(got), np.array(expected), rtol=rel, atol=0)


def decoder(
    *,
    shape: Shape = SHAPE,
    rope: Rope | None = None,
    seed: int = 0,
    smooth: Any = Plain,
    dropout: float = 0.0,
    **rest: Any,
) -> Decoder:
    torch.manual_seed(seed)
    return make_decoder(
        shape, vocab=VOCAB, rope=rope, **{"smooth": smooth, "ffn": partial(SwiGLU, dropout=dropout), **rest}
    )


def task(**rest: Any) -> LanguageTask:
    return LanguageTask(decoder(**rest), optim=AdamW(lr=1e-2), schedule=Cosine())


class Rows:
    """Rows from a fixed seed; endless for training, `count` batches when sized."""

    def __init__(self, *, batch: int = 4, context: int = 16, start: int = 0) -> None:
        self.batch, self.context, self.start = batch, context, start

    def row(self, number: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(1000 + number)
        block = torch.randint(0, VOCAB, (self.batch, self.context + 1), generator=generator)
        ids = torch.arange(number * self.batch, (number + 1) * self.batch)
        return {"tokens": block[:, :-1], "targets": block[:, 1:], "ids": ids}

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        number = self.start
        while True:
            yield self.row(number)
            number += 1


class FewRows(Rows):
    """The first `count` batches, for validation."""

    def __init__(self, count: int = 2, **rest: Any) -> None:
        super().__init__(**rest)
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        return (self.row(10_000 + number) for number in range(self.count))


def trainer(**settings: Any) -> Any:
    """A quiet CPU Trainer that writes nothing unless told to."""
    from lightning.pytorch import Trainer

    defaults: dict[str, Any] = {
        "accelerator": "cpu",
        "devices": 1,
        "max_steps": 6,
        "max_epochs": -1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "check_val_every_n_epoch": None,
        "val_check_interval": 3,
        "num_sanity_val_steps": 0,
    }
    return Trainer(**(defaults | settings))


class Given:
    """A sized loader over batches that are there already."""

    def __init__(self, batches: list[dict[str, Tensor]]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        return iter(self.batches)


def bound(layer: Any, positions: Any) -> Any:
    """A layer that knows positions in this way, as the model would bind them."""
    layer.bind_positions(positions)
    return layer
