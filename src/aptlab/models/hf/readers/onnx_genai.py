"""onnxruntime-genai's model builder: scalings of a Llama other than llama3 are left out without an error. No torch.

Its tables of cosines end at max_position_embeddings: a longer text is an error when it is read.
"""

from __future__ import annotations

from aptlab.models.hf.readers.base import KEPT, Reader, Verdict

PLAIN = Verdict("dropped", "without scaling")
SHORT = Verdict("refused", "its tables end at max_position_embeddings")

ONNX_GENAI = Reader(
    name="onnxruntime-genai",
    versions=("onnxruntime-genai 0.18.0", "onnxruntime 1.32.0"),
    default={
        "standard": SHORT,
        "theta": KEPT,
        "linear": Verdict("refused", "it leaves the factor out, and its tables end at max_position_embeddings"),
        "dynamic": SHORT,
        "yarn": PLAIN,
        "yarn betas": PLAIN,
        "yarn attention_factor": PLAIN,
        "yarn truncate": PLAIN,
        "llama3": KEPT,
        "longrope": Verdict("refused", "it wants `type` in rope_scaling"),
        "divisors": PLAIN,
        "proportional": SHORT,
        "partial": SHORT,
        "per layer": Verdict("refused", "it wants one rope_type"),
        "irope": Verdict("refused", "it has no such layout without position_ids"),
    },
)
