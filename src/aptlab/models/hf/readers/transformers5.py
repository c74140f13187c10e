"""transformers 5: reads every rule; with two keys in a file the older one wins. No torch."""

from __future__ import annotations

from aptlab.models.hf.readers.base import KEPT, Reader
from aptlab.models.hf.readers.forms import keep_newer_key
from aptlab.models.hf.readers.rules import ROWS

TRANSFORMERS5 = Reader(
    name="transformers5",
    versions=("transformers 5.24.0",),
    default=dict.fromkeys(ROWS, KEPT),
    own=dict.fromkeys(ROWS, KEPT),
    form=keep_newer_key,
    way_out="keep the checkpoint and use `aptlab generate` and `aptlab eval`",
)
