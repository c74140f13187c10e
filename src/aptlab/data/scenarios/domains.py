"""Domains of text, one after another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from aptlab.data.scenarios.base import Scenario
from aptlab.data.sources import Source
from aptlab.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Domains(Scenario):
    """Each source is a task, in the order in which they stand; all share one tokenizer."""

    sources: Mapping[str, Source]

    def __post_init__(self) -> None:
        if not self.sources:
            raise ConfigError("sources={} has no task; name sources, in the order in which they are learned")
        super().__post_init__()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.sources)
