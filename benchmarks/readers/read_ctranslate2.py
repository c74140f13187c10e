"""CTranslate2 on the CPU, float32: its TransformersConverter, then Generator.forward_batch.

It does not open what it converted from a tokenizer without the tokens bos and unk; they get the name of eos here, as
`aptlab export for=ctranslate2` gives it to them.
"""

from __future__ import annotations

import json
from pathlib import Path

import ctranslate2
import numpy as np
from ctranslate2.converters import TransformersConverter
from protocol import Logits, serve


def open_folder(folder: Path, work: Path) -> Logits:
    TransformersConverter(str(folder)).convert(str(work / "converted"), force=True)
    settings = work / "converted" / "config.json"
    values = json.loads(settings.read_text())
    missing = {key: values["eos_token"] for key, value in values.items() if key.endswith("_token") and value is None}
    settings.write_text(json.dumps(values | missing))
    generator = ctranslate2.Generator(str(work / "converted"), device="cpu", compute_type="float32")

    def logits(tokens: list[int]) -> np.ndarray:
        ids = ctranslate2.StorageView.from_array(np.array([tokens], dtype=np.int32))
        lengths = ctranslate2.StorageView.from_array(np.array([len(tokens)], dtype=np.int32))
        return np.array(generator.forward_batch(ids, lengths))[0]

    return logits


serve(open_folder)
