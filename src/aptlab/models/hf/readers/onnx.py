"""onnxruntime with the graph of `aptlab export format=onnx`: the rule's own tables. No torch."""

from __future__ import annotations

from aptlab.models.hf.readers.base import KEPT, Reader
from aptlab.models.hf.readers.rules import ROWS

ONNX = Reader(name="onnx", versions=("onnxruntime 1.32.0",), default={}, own=dict.fromkeys(ROWS, KEPT))
