"""onnxruntime-genai's model builder: not measured yet; benchmarks/runtimes.py has its environment. No torch."""

from __future__ import annotations

from aptlab.models.hf.readers.base import Reader

ONNX_GENAI = Reader(name="onnxruntime-genai", versions=("onnxruntime-genai 0.18.0",), default={})
