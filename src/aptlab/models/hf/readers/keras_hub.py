"""keras-hub: reads llama3 scaling of a Llama, refuses others there, and leaves all out in Qwen. No torch."""

from __future__ import annotations

from aptlab.models.hf.readers.base import KEPT, Reader, Verdict

KERAS_HUB = Reader(
    name="keras-hub",
    versions=("keras-hub 0.32.0", "keras 3.15.1"),
    default={
        "standard": KEPT,
        "theta": KEPT,
        "llama3": KEPT,
        "yarn": Verdict("refused", "it has llama3 scaling alone"),
        "linear": Verdict("refused", "it has llama3 scaling alone"),
        "yarn in Qwen 2": Verdict("dropped", "without scaling"),
    },
)
