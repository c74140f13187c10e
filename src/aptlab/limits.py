"""Numbers and names with limits, written once in a signature and read by every check.

`factor: Positive` means the same to a type checker (a float), to the config check (which reads the
name of the annotation without importing the module) and to `validate`, which a rule calls on itself.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from aptlab.errors import ConfigError

WIDEST = 2**63 - 1  # whole number that torch, numpy and every file format here can hold
LARGEST = 3.4028234663852886e38  # number that a float of 32 bits can hold, which is what devices compute with


def find_width_problem(value: Any) -> str | None:
    """What is wrong with a number that no computation here can hold, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, int):
        return None if abs(value) <= WIDEST else f"must be a whole number of 64 bits, got {value}"
    if math.isnan(value):
        return "must be a number, got nan"
    too_large = math.isfinite(value) and abs(value) > LARGEST
    return f"must be a number that 32 bits can hold (up to {LARGEST:.1e}), got {value}" if too_large else None


@dataclass(frozen=True)
class Limit:
    """An interval of allowed numbers; `low_open` and `high_open` exclude the ends."""

    low: float = -math.inf
    high: float = math.inf
    low_open: bool = False
    high_open: bool = False

    def problem(self, value: Any) -> str | None:
        """What is wrong with `value`, or None. A value that is no number is not judged here."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        low_ok = value > self.low if self.low_open else value >= self.low
        high_ok = value < self.high if self.high_open else value <= self.high
        if (isinstance(value, int) or math.isfinite(value)) and low_ok and high_ok:
            return find_width_problem(value)
        return f"must be {self}, got {value}"

    def __str__(self) -> str:
        if self.high == math.inf:
            return f"a finite number {'>' if self.low_open else '>='} {self.low:g}"
        return f"in {'(' if self.low_open else '['}{self.low:g}, {self.high:g}{')' if self.high_open else ']'}"


@dataclass(frozen=True)
class TextLimit:
    """Texts that match `pattern` as a whole; `meaning` says which these are."""

    pattern: str
    meaning: str

    def problem(self, value: Any) -> str | None:
        """What is wrong with `value`, or None. A value that is no text is not judged here."""
        if not isinstance(value, str) or re.fullmatch(self.pattern, value):
            return None
        return f"must be {self}, got {value!r}"

    def __str__(self) -> str:
        return self.meaning


Positive = Annotated[float, Limit(low=0, low_open=True)]
NonNegative = Annotated[float, Limit(low=0)]
AtLeastOne = Annotated[float, Limit(low=1)]
Fraction = Annotated[float, Limit(low=0, high=1)]
RotaryFraction = Annotated[float, Limit(low=0, high=1)]  # of each head's dims: what a new rule on old weights keeps
OpenFraction = Annotated[float, Limit(low=0, high=1, high_open=True)]
Share = Annotated[float, Limit(low=0, high=1, low_open=True)]  # of something that must not be nothing
PositiveInt = Annotated[int, Limit(low=1)]
NonNegativeInt = Annotated[int, Limit(low=0)]
AtLeastMinusOne = Annotated[int, Limit(low=-1)]  # where -1 counts none
NumpySeed = Annotated[int, Limit(low=0, high=2**32 - 1)]  # what numpy's old generator takes, which optuna uses
FolderName = Annotated[str, TextLimit(r"[A-Za-z0-9][\w.\-]*", "the name of a folder, of letters, digits and . _ -")]
OptionName = Annotated[str, TextLimit(r"[A-Za-z]\w*", "a name of letters, digits and _")]

LIMITS: Mapping[str, tuple[type, Limit | TextLimit]] = {
    name: (kind.__origin__, kind.__metadata__[0])
    for name, kind in {
        "Positive": Positive,
        "NonNegative": NonNegative,
        "AtLeastOne": AtLeastOne,
        "Fraction": Fraction,
        "RotaryFraction": RotaryFraction,
        "OpenFraction": OpenFraction,
        "Share": Share,
        "PositiveInt": PositiveInt,
        "NonNegativeInt": NonNegativeInt,
        "AtLeastMinusOne": AtLeastMinusOne,
        "NumpySeed": NumpySeed,
        "FolderName": FolderName,
        "OptionName": OptionName,
    }.items()
}


def find_limit(annotation: Any) -> Limit | TextLimit | None:
    """The limit inside an annotation, given as a type or as its source text (`"Positive | None"`)."""
    if isinstance(annotation, str):
        words = annotation.replace("|", " ").split()
        return next((LIMITS[word][1] for word in words if word in LIMITS), None)
    metadata = getattr(annotation, "__metadata__", ())
    return next((item for item in metadata if isinstance(item, Limit | TextLimit)), None)


def validate_limits(rule: Any) -> None:
    """Check every limited field of a dataclass; raises ConfigError naming field and value."""
    for field in dataclasses.fields(rule):
        limit = find_limit(field.type)
        problem = limit.problem(getattr(rule, field.name)) if limit else None
        if problem:
            raise ConfigError(f"{field.name} {problem}")
