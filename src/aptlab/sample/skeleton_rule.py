"""How a session's skeleton is kept, as plain values. No torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from aptlab.errors import ConfigError
from aptlab.limits import OpenFraction, PositiveInt, Share, validate_limits


@dataclass(frozen=True, kw_only=True)
class SkeletonTexts:
    """What is said of a session, a text for each field; None = the field stays as it is."""

    topic: str | None = None
    constraints: str | None = None
    definitions: str | None = None
    unresolved: str | None = None
    style_preference: str | None = None
    spike_regions: str | None = None

    @property
    def given(self) -> dict[str, str]:
        """The fields that a text is given for."""
        return {name: text for name, text in dataclasses.asdict(self).items() if text}


@dataclass(frozen=True, kw_only=True)
class SkeletonRule:
    """How the skeleton of a session is kept, see `aptlab.nn.skeleton.Skeleton`.

    file      where it is kept from one session to the next; None = nowhere, it lives in this one
    texts     what is said of the session, read before the prompts
    window    tokens of a prompt that are read at once: of a longer one, the windows before the last are read into the
              skeleton, and the text goes on from the last; None = all of it
    momentum  share of a field that stays when it is updated; a field that is empty takes the new value whole
    compress  of a new skeleton: mean, or linear, along the principal directions of the embedding
    spikes    share of a prompt's tokens that are its spikes, the strongest ones
    """

    file: str | None = None
    texts: SkeletonTexts = field(default_factory=SkeletonTexts)
    window: PositiveInt | None = None
    momentum: OpenFraction = 0.5
    compress: Literal["mean", "linear"] = "mean"
    spikes: Share = 0.1

    def __post_init__(self) -> None:
        validate_limits(self)
        if self.compress not in ("mean", "linear"):
            raise ConfigError(f"compress={self.compress!r}; allowed: mean, linear")
        if self.file is not None and not self.file.strip():
            raise ConfigError("file is empty; give the name of a file such as notes.pt, or null")

    @property
    def active(self) -> bool:
        """Whether there is anything to keep or to carry."""
        return self.file is not None or self.window is not None or bool(self.texts.given)


# As they are typed on a command line: a text may hold any character.
RAW = ("skeleton.file", *(f"skeleton.texts.{text.name}" for text in dataclasses.fields(SkeletonTexts)))


def replace_raw_values(rule: SkeletonRule, raw: Mapping[str, str | None]) -> SkeletonRule:
    """The rule with what was typed for `RAW` keys; nothing typed behind the = is None. Other keys are left alone."""
    typed = {key.removeprefix("skeleton."): value or None for key, value in raw.items() if key in RAW}
    texts = {key.removeprefix("texts."): value for key, value in typed.items() if key != "file"}
    file = {"file": typed["file"]} if "file" in typed else {}
    return dataclasses.replace(rule, texts=dataclasses.replace(rule.texts, **texts), **file)
