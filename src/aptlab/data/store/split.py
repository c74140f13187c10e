"""Which side of the train/validation split a document is on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from aptlab.errors import ConfigError
from aptlab.limits import Fraction, validate_limits


@dataclass(frozen=True)
class Split:
    """Put a document on the validation side when the hash of its text falls below `val_fraction`.

    The hash takes `seed` and the text, nothing else: adding, renaming or reordering documents moves no other
    document, and two documents with the same text are never on two sides.
    `val_fraction` counts documents, so the share of tokens differs from it when documents differ in length.
    Raises ConfigError when `val_fraction` is not strictly between 0 and 1.
    """

    val_fraction: Fraction = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        validate_limits(self)
        if self.val_fraction in (0, 1):
            raise ConfigError(
                f"val_fraction={self.val_fraction} leaves one side of the split empty; try val_fraction=0.05"
            )

    def is_val(self, text: str) -> bool:
        """True when the document belongs to the validation side."""
        salt = f"{self.seed}\n".encode()
        digest = hashlib.sha256(salt + text.encode("utf-8", "surrogatepass")).digest()
        return int.from_bytes(digest[:8], "big") < self.val_fraction * 2**64

    def key(self) -> str:
        """What of the split decides the content of a cache."""
        return f"text-sha256:{self.val_fraction!r}:{self.seed}"
