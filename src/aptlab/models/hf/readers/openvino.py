"""OpenVINO by optimum-intel: a trace of transformers' own model keeps every rule but one that goes by length. No torch.

A trace holds the frequencies of its example: of rope_type dynamic those within the trained length, at every length.
"""

from __future__ import annotations

from aptlab.models.hf.readers.base import KEPT, Reader, Verdict

OPENVINO = Reader(
    name="openvino",
    versions=("optimum-intel 2.2.0", "openvino 2026.4.1"),
    default={
        "standard": KEPT,
        "theta": KEPT,
        "linear": KEPT,
        "dynamic": Verdict("dropped", "without scaling"),
        "yarn": KEPT,
        "yarn betas": KEPT,
        "yarn attention_factor": KEPT,
        "yarn truncate": KEPT,
        "llama3": KEPT,
        "longrope": KEPT,
        "divisors": KEPT,
        "proportional": KEPT,
        "partial": KEPT,
        "per layer": Verdict("refused", "it exports Gemma 3 by transformers 5.0 at most"),
        "irope": KEPT,
        "yarn in Qwen 2": KEPT,
        "yarn in Qwen 3": KEPT,
    },
)
