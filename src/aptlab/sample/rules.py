"""How the next token is chosen, as numbers. No torch; `aptlab.sample.logits` holds the mathematics."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal, TypedDict

from aptlab.errors import ConfigError, suggest_option
from aptlab.limits import Fraction, NonNegative, NonNegativeInt, Positive, validate_limits

TEMPERATURE = 0.8  # of a text that a person reads, as in conf/generate.yaml
DRAFT_TOKENS = 4  # that a smaller width drafts before the large one reads them, as in conf/generate.yaml
CROSSINGS = ("admit", "reprefill", "rerotate", "error")


@dataclass(frozen=True, kw_only=True)
class SamplingRules:
    """Applied in this order, the one of transformers: repetition, temperature, top-k, top-p, min-p, then the draw.

    temperature         logits are divided by it; 0 takes the likeliest token (greedy), and the cuts below do nothing
    top_k               keep the k likeliest tokens; 0 keeps all
    top_p               keep the fewest tokens with this much probability; 1 keeps all
    min_p               keep tokens with at least this share of the largest probability; 0 keeps all
    repetition_penalty  logits of tokens already in the row are divided by it (multiplied below zero); 1 is off
    crossing            what position rules that choose by length (dynamic, longrope) go by. admit: the length that
                        the text may reach, fixed at the start, so nothing is ever crossed. The others go by the
                        length so far, and where the rule changes its mind: reprefill reads the text again (exact),
                        rerotate rotates the cached keys (deeper layers keep what they computed), error stops
    """

    temperature: NonNegative = 1.0
    top_k: NonNegativeInt = 0
    top_p: Fraction = 1.0
    min_p: Fraction = 0.0
    repetition_penalty: Positive = 1.0
    crossing: Literal["admit", "reprefill", "rerotate", "error"] = "admit"

    def __post_init__(self) -> None:
        validate_limits(self)
        if self.crossing not in CROSSINGS:
            raise ConfigError(f"crossing={self.crossing!r}; allowed: {', '.join(CROSSINGS)}")

    @property
    def greedy(self) -> bool:
        return self.temperature == 0


class SamplingOptions(TypedDict, total=False):
    """The fields of `SamplingRules` as keywords of a function, so that editors and type checkers know them."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    crossing: Literal["admit", "reprefill", "rerotate", "error"]


def make_sampling_rules(options: SamplingOptions) -> SamplingRules:
    """The rules of keywords, with temperature 0.8 where none is given. ConfigError for one that does not exist."""
    known = [field.name for field in dataclasses.fields(SamplingRules)]
    for name in options:
        if name not in known:
            raise ConfigError(
                f"{name}={options[name]!r}: there is no such sampling option{suggest_option(name, known)}"
            )
    return SamplingRules(**{"temperature": TEMPERATURE, **options})
