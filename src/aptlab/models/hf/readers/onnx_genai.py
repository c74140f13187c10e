"""onnxruntime-genai's model builder: scalings of a Llama other than llama3 are left out without an error. No torch."""

from __future__ import annotations

from aptlab.models.hf.readers.base import KEPT, Reader, Verdict

PLAIN = Verdict("dropped", "without scaling")

ONNX_GENAI = Reader(
    name="onnxruntime-genai",
    versions=("onnxruntime-genai 0.18.0",),
    default={"standard": KEPT, "theta": KEPT, "llama3": KEPT, "yarn": PLAIN, "linear": PLAIN},
)
