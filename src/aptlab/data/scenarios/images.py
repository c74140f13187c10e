"""Tasks made of images: some classes after others, or the same classes in one domain after another."""

from __future__ import annotations

from dataclasses import dataclass

from aptlab.data.images import Images, ImageTransform
from aptlab.data.scenarios.base import Scenario
from aptlab.data.scenarios.shares import share_classes
from aptlab.limits import Fraction, PositiveInt, validate_limits


@dataclass(frozen=True, kw_only=True)
class ImageScenario(Scenario):
    """Tasks over one set of images.

    tasks         how many
    val_fraction  of each class, on which is measured; the same images for every task and method
    split_seed    which images those are
    """

    images: Images
    tasks: PositiveInt = 5
    val_fraction: Fraction = 0.25
    split_seed: int = 0

    def __post_init__(self) -> None:
        validate_limits(self)
        super().__post_init__()


@dataclass(frozen=True, kw_only=True)
class ClassIncremental(ImageScenario):
    """Each task brings new classes, and is not told apart from the others when it is measured (split images).

    With K classes, task k has the classes from k K / tasks on, in the order of `shuffle`: null as they are numbered,
    else drawn by that seed.
    """

    shuffle: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.list_classes()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple("+".join(map(str, classes)) for classes in self.list_classes())

    def list_classes(self) -> list[list[int]]:
        """The classes of each task. ConfigError where there are more tasks than classes."""
        return share_classes(self.images.classes, self.tasks, shuffle=self.shuffle)


@dataclass(frozen=True, kw_only=True)
class DomainIncremental(ImageScenario):
    """All classes in every task, the images changed by `transform` from task to task."""

    transform: ImageTransform

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"domain{task}" for task in range(self.tasks))
