"""CTranslate2: linear is the one scaling that is passed on; llama3 is accepted and not computed. No torch."""

from __future__ import annotations

from aptlab.models.hf.readers.base import KEPT, Reader, Verdict
from aptlab.models.hf.readers.forms import keep_phi3_fields

NO_SCALING = Verdict("refused", "its converter has linear scaling alone")

CTRANSLATE2 = Reader(
    name="ctranslate2",
    versions=("ctranslate2 4.8.5",),
    default={
        "standard": KEPT,
        "theta": KEPT,
        "linear": KEPT,
        "dynamic": NO_SCALING,
        "yarn": NO_SCALING,
        "llama3": Verdict("dropped", "without scaling"),
    },
    own={
        "standard": KEPT,
        "theta": KEPT,
        "linear": KEPT,
        "dynamic": NO_SCALING,
        "yarn": NO_SCALING,
        "llama3": Verdict("dropped", "without scaling"),
    },
    form=keep_phi3_fields,
    way_out="train with rope=linear or ntk for it, or export for=transformers5",
)
