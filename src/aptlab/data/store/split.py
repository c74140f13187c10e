"""Which side of the train/validation split a document is on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Protocol

from aptlab.errors import ConfigError, DataError
from aptlab.limits import Fraction, validate_limits

DIGESTS = 2**64


class Division(Protocol):
    """What a token cache asks of a split."""

    @property
    def val_fraction(self) -> float:
        """The share of the text that was asked for."""
        ...

    def divide(self, text: str) -> tuple[str, str]:
        """The part of a document that is trained on, and the part that is validated on; either may be empty."""
        ...

    def key(self) -> str:
        """What of it decides the content of a cache."""
        ...


@dataclass(frozen=True)
class Split:
    """Hold `val_fraction` of the text back for validation: a share of its UTF-8 bytes, and so about of its tokens.

    A document is on the validation side when the hash of its text falls below `val_fraction`. The hash takes `seed` and
    the text, nothing else: adding, renaming or reordering documents moves no other document, and two documents with the
    same text are never on two sides. Where this gives a share far from `val_fraction`, as with a few documents or one
    that is much larger than the others, documents are split inside, unless `inside` is false: see `plan_split`.
    Raises ConfigError when `val_fraction` is not strictly between 0 and 1.
    """

    val_fraction: Fraction = 0.05
    seed: int = 0
    inside: bool = True

    def __post_init__(self) -> None:
        validate_limits(self)
        if self.val_fraction in (0, 1):
            raise ConfigError(
                f"val_fraction={self.val_fraction} leaves one side of the split empty; try val_fraction=0.05"
            )

    def hash_text(self, text: str) -> int:
        """A number in [0, DIGESTS) that the seed and the text decide."""
        salt = f"{self.seed}\n".encode()
        digest = hashlib.sha256(salt + text.encode("utf-8", "surrogatepass")).digest()
        return int.from_bytes(digest[:8], "big")

    def is_val(self, text: str) -> bool:
        """True when the document belongs to the validation side, as a whole."""
        return self.hash_text(text) < self.val_fraction * DIGESTS

    def divide(self, text: str) -> tuple[str, str]:
        """The whole document on one side, nothing on the other."""
        return ("", text) if self.is_val(text) else (text, "")

    def key(self) -> str:
        """What of the split decides the content of a cache."""
        return f"text-sha256:{self.val_fraction!r}:{self.seed}"


def check_sides(documents: dict[str, int], split: Division) -> None:
    """Raise DataError when one side of the split got no document."""
    total = sum(documents.values())
    if total == 0:
        raise DataError("the source has no document; give it files with text")
    for side, count in documents.items():
        if count == 0:
            all_of = "the one document is" if total == 1 else f"all {total:,} documents are"
            raise DataError(
                f"split.val_fraction={split.val_fraction} leaves the {side} side empty: {all_of} on the other one; "
                " use more documents, another val_fraction or another seed of the split"
            )
