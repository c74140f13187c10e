"""OpenVINO by optimum-intel traces transformers: most rules come along, `dynamic` as it starts. No torch."""

from __future__ import annotations

from aptlab.models.hf.readers.base import KEPT, Reader, Verdict
from aptlab.models.hf.readers.rules import ROWS

OPENVINO = Reader(
    name="openvino",
    versions=("optimum-intel 2.2.0", "openvino 2026.4.1", "transformers 5.5.4"),
    default=dict.fromkeys(ROWS, KEPT) | {"dynamic": Verdict("dropped", "without scaling")},
)
