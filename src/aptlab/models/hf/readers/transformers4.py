"""transformers 4: reads `rope_theta` and `rope_scaling`, of Phi-3 three fields of it. No torch."""

from __future__ import annotations

from aptlab.models.hf.readers.base import KEPT, Reader, Verdict
from aptlab.models.hf.readers.forms import keep_phi3_fields
from aptlab.models.hf.readers.rules import ROWS

THREE_FIELDS = Verdict("refused", "Phi-3's rope_scaling must be a dictionary with three fields")
UNKNOWN = Verdict("refused", "it has no rope_type=proportional")

TRANSFORMERS4 = Reader(
    name="transformers4",
    versions=("transformers 4.57.6",),
    default=dict.fromkeys(ROWS, KEPT) | {"longrope": THREE_FIELDS, "partial": THREE_FIELDS, "proportional": UNKNOWN},
    own=dict.fromkeys(ROWS, KEPT) | {"proportional": UNKNOWN},
    form=keep_phi3_fields,
)
