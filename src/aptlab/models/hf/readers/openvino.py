"""OpenVINO by optimum-intel: not measured yet in this table; benchmarks/runtimes.py has its environment. No torch."""

from __future__ import annotations

from aptlab.models.hf.readers.base import Reader

OPENVINO = Reader(name="openvino", versions=("optimum-intel 2.2.0", "openvino 2026.4.1"), default={})
