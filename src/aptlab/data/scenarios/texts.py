"""Tasks made of texts with a class: some classes after others."""

from __future__ import annotations

from dataclasses import dataclass

from aptlab.data.scenarios.base import Scenario
from aptlab.data.scenarios.shares import share_classes
from aptlab.data.texts import LabelledTexts
from aptlab.limits import Fraction, PositiveInt, validate_limits


@dataclass(frozen=True, kw_only=True)
class ClassIncrementalTexts(Scenario):
    """Each task brings new classes of texts, and is not told apart from the others when it is measured.

    With K classes, task k has the classes from k K / tasks on, in the order of `shuffle`: null as they are named, else
    drawn by that seed.

    tasks         how many
    val_fraction  of the documents, on which is measured; the same ones for every method
    split_seed    which documents those are
    """

    texts: LabelledTexts
    tasks: PositiveInt = 3
    val_fraction: Fraction = 0.2
    split_seed: int = 0
    shuffle: int | None = None

    def __post_init__(self) -> None:
        validate_limits(self)
        super().__post_init__()
        self.list_classes()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple("+".join(self.texts.names[label] for label in classes) for classes in self.list_classes())

    def list_classes(self) -> list[list[int]]:
        """The classes of each task. ConfigError where there are more tasks than classes."""
        return share_classes(len(self.texts.names), self.tasks, shuffle=self.shuffle)
