"""Analyses of position rules: numbers by `measure`, a figure by `draw`. Only precision loads torch."""

from __future__ import annotations

from types import ModuleType

from aptlab.report.positions import bases, decay, extrapolation, memory, precision, similarity, wavelengths
from aptlab.report.positions.rotary_parts import AnalysisSettings, RotaryPart, split_rotary_parts

ANALYSES: dict[str, ModuleType] = {
    "wavelengths": wavelengths,
    "similarity": similarity,
    "extrapolation": extrapolation,
    "decay": decay,
    "bases": bases,
    "precision": precision,
    "memory": memory,
}

__all__ = ["ANALYSES", "AnalysisSettings", "RotaryPart", "split_rotary_parts"]
