"""What an evaluation says of the text that it reads."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from aptlab.evals.context import describe_differences
from aptlab.nn.positions.rope import Standard

NET: Any = SimpleNamespace(rope=Standard())
DATA = SimpleNamespace(fingerprint="now", summary=lambda: {"name": "stdlib"})


@pytest.mark.parametrize(
    ("before", "own_text", "line"),
    [
        ("", True, "data     stdlib; the weights come without the text that they were trained on"),
        ("", False, "data     stdlib; the weights come without the text that they were trained on"),
        ("other", True, "data     the text is not what it was in training: the source has changed, or is another here"),
        ("other", False, "data     stdlib, another text than in training"),
        ("now", True, "parts    all as in the checkpoint"),
    ],
)
def test_a_text_is_compared_with_that_of_training_only_where_that_is_known(before, own_text, line):
    loaded: Any = SimpleNamespace(net=NET, meta={"fingerprint": before})
    assert describe_differences(loaded, NET, DATA, own_text=own_text) == [line]
