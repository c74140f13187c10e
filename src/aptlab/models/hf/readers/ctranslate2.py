"""CTranslate2: linear is the one scaling that is passed on; llama3 is accepted and not computed. No torch."""

from __future__ import annotations

from aptlab.models.hf.readers.base import KEPT, Reader, Verdict
from aptlab.models.hf.readers.forms import keep_phi3_fields
from aptlab.models.hf.readers.rules import ROWS

OTHERS = dict.fromkeys(ROWS, Verdict("refused", "its converter has no such scaling or layout"))
MEASURED = OTHERS | {
    "standard": KEPT,
    "theta": KEPT,
    "linear": KEPT,
    "llama3": Verdict("dropped", "without scaling"),
}

CTRANSLATE2 = Reader(
    name="ctranslate2",
    versions=("ctranslate2 4.8.5",),
    default=MEASURED,
    own=MEASURED,
    form=keep_phi3_fields,
    tokens=("bos_token", "unk_token"),
    way_out="train with rope=linear or ntk for it, or export for=transformers5",
)
