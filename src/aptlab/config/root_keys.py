"""Types and limits of the root keys, which no signature tells."""

from __future__ import annotations

import re
from typing import Any

from aptlab.config.static.types import find_annotation_problem

PRECISION = "Literal['auto', '32-true', 'bf16-mixed', 'bf16-true', '16-mixed']"
ANALYSIS = "Literal['all', 'wavelengths', 'similarity', 'extrapolation', 'decay', 'bases', 'precision', 'memory']"
DIALS = {
    "train": {
        "seed": "NonNegativeInt",
        "context": "PositiveInt",
        "vocab": "PositiveInt | None",
        "precision": PRECISION,
        "compile": "bool",
        "job": "str",
        "run_dir": "str | None",
        "ckpt": "str | None",
        "load": "Literal['auto', 'resume', 'weights']",
    },
    "eval": {
        "ckpt": "str",
        "multiples": "list[PositiveInt]",
        "tokens": "PositiveInt",
        "precision": PRECISION,
        "out": "str | None",
        "context": "PositiveInt | None",
        "seed": "NonNegativeInt | None",
    },
    "export": {
        "ckpt": "str | None",
        "out": "str | None",
        "dtype": "Literal['float32', 'bfloat16', 'float16']",
        "force": "bool",
    },
    "import": {"path": "str | None", "out": "str | None", "force": "bool"},
    "generate": {
        "ckpt": "str",
        "prompt": "str | None",
        "prompts_file": "str | None",
        "max_new_tokens": "PositiveInt",
        "temperature": "NonNegative",
        "top_k": "NonNegativeInt",
        "top_p": "Fraction",
        "min_p": "Fraction",
        "repetition_penalty": "Positive",
        "crossing": "Literal['admit', 'reprefill', 'rerotate', 'error']",
        "seed": "NonNegativeInt",
        "samples": "PositiveInt",
        "stop": "list[str]",
        "batch": "PositiveInt",
        "out": "str | None",
        "stream": "bool",
    },
    "search": {
        "ckpt": "str",
        "target": "PositiveInt",
        "seed": "NonNegativeInt",
        "workers": "PositiveInt | None",
        "precision": PRECISION,
        "name": "str | None",
        "out": "str | None",
    },
    "plot": {
        "what": f"{ANALYSIS} | list[{ANALYSIS}]",
        "head_dim": "PositiveInt",
        "heads": "PositiveInt",
        "original": "PositiveInt",
        "length": "PositiveInt | None",
        "base": "Positive | list[Positive]",
        "seed": "NonNegativeInt",
        "out": "str | None",
    },
}


def find_root_key_problem(command: str, key: str, value: Any) -> str | None:
    """What is wrong with the value of a command's root key, or None."""
    annotation = DIALS.get(command, {}).get(key)
    if annotation is None:
        return None
    if key == "target" and value is None:
        return "a length is needed, in tokens, as in target=2048"
    problem = find_annotation_problem(value, annotation)
    if problem is None and key == "job" and not re.fullmatch(r"[A-Za-z0-9][\w.\-]*", value):
        return f"must be the name of a folder, of letters, digits and . _ -, got {value!r}"
    if problem is None and key == "name" and isinstance(value, str) and not re.fullmatch(r"[A-Za-z]\w*", value):
        return f"must be a name of letters, digits and _, got {value!r}"
    return problem
