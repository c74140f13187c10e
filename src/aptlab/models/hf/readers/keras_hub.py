"""keras-hub: the Llama converter takes llama3 and refuses every other scaling; those of Qwen read none. No torch.

Its Llama keeps 1e-6 for the epsilon of the norms, whatever rms_norm_eps says, so logits differ by some thousandths.
"""

from __future__ import annotations

from aptlab.models.hf.readers.base import KEPT, Reader, Verdict

LLAMA3 = Verdict("refused", "its Llama converter takes rope_type llama3 alone")
NO_PHI3 = Verdict("refused", "it has no converter for phi3")
PLAIN = Verdict("dropped", "without scaling")

KERAS_HUB = Reader(
    name="keras-hub",
    versions=("keras-hub 0.32.0", "keras 3.15.1"),
    default={
        "standard": KEPT,
        "theta": KEPT,
        "linear": LLAMA3,
        "dynamic": LLAMA3,
        "yarn": LLAMA3,
        "yarn betas": LLAMA3,
        "yarn attention_factor": LLAMA3,
        "yarn truncate": LLAMA3,
        "llama3": KEPT,
        "longrope": NO_PHI3,
        "divisors": LLAMA3,
        "proportional": LLAMA3,
        "partial": NO_PHI3,
        "per layer": Verdict("partly", "as nothing that was tried"),
        "irope": KEPT,
        "yarn in Qwen 2": PLAIN,
        "yarn in Qwen 3": PLAIN,
    },
)
