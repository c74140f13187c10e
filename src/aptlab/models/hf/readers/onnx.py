"""onnxruntime with the graph of `aptlab export format=onnx`, which is compared whenever one is written. No torch."""

from __future__ import annotations

from aptlab.models.hf.readers.base import Reader

ONNX = Reader(name="onnx", versions=("onnxruntime 1.32.0",), default={})
