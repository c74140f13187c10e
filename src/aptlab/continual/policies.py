"""Which samples a buffer keeps: rules that say a sample's group and its key. No numpy until keys are made."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from aptlab.limits import PositiveInt, validate_limits

if TYPE_CHECKING:
    import numpy as np

By = Literal["class", "task"]
LATEST = (1 << 63) - 1


@dataclass(frozen=True, kw_only=True)
class Policy(ABC):
    """A rule of what is kept; in each group those with the smallest keys are, see `aptlab.continual.memory`.

    needs_features  whether keys are made of features of the network, of all samples of a task at its end
    """

    needs_features: ClassVar[bool] = False

    @property
    @abstractmethod
    def grouped_by(self) -> By | None:
        """What a sample's group is; None: all are one group."""

    @abstractmethod
    def make_keys(self, numbers: np.ndarray, *, seed: int, features: np.ndarray | None = None) -> np.ndarray:
        """Keys of samples of one group, uint64 [B]: by their numbers in the stream [B], or their features [B, D]."""


@dataclass(frozen=True, kw_only=True)
class Reservoir(Policy):
    """Every sample of the stream with the same probability (Vitter 1985): the smallest of uniform keys."""

    @property
    def grouped_by(self) -> None:
        return None

    def make_keys(self, numbers: np.ndarray, *, seed: int, features: np.ndarray | None = None) -> np.ndarray:
        from aptlab.continual.keys import draw_keys

        del features
        return draw_keys(seed, numbers)


@dataclass(frozen=True, kw_only=True)
class Balanced(Policy):
    """A reservoir for each class or task, all of one size, which shrinks as groups come (as Avalanche's balanced ones).

    What does not divide goes to the groups with the smallest numbers, where Avalanche gives it to those seen first.
    """

    by: By = "task"

    @property
    def grouped_by(self) -> By:
        return self.by

    def make_keys(self, numbers: np.ndarray, *, seed: int, features: np.ndarray | None = None) -> np.ndarray:
        return Reservoir().make_keys(numbers, seed=seed, features=features)


@dataclass(frozen=True, kw_only=True)
class Ring(Policy):
    """The latest samples of each class or task (the ring buffer of Chaudhry et al. 2019, arXiv:1902.10486)."""

    by: By = "task"

    @property
    def grouped_by(self) -> By:
        return self.by

    def make_keys(self, numbers: np.ndarray, *, seed: int, features: np.ndarray | None = None) -> np.ndarray:
        import numpy as np

        del seed, features
        return (LATEST - np.asarray(numbers, dtype=np.int64)).astype(np.uint64)


@dataclass(frozen=True, kw_only=True)
class Herding(Policy):
    """Exemplars of each class or task, chosen at its end by features of the network (iCaRL, Rebuffi et al. 2017,
    arXiv:1611.07725, algorithm 4); see `aptlab.continual.herding`.

    most  samples that are ranked, at least as many as the buffer holds; the others of a group are never kept
    """

    needs_features: ClassVar[bool] = True

    by: By = "class"
    normalize: bool = True
    most: PositiveInt = 2_000

    def __post_init__(self) -> None:
        validate_limits(self)

    @property
    def grouped_by(self) -> By:
        return self.by

    def make_keys(self, numbers: np.ndarray, *, seed: int, features: np.ndarray | None = None) -> np.ndarray:
        """Ranks of herding; samples behind the last rank share the largest key."""
        import numpy as np

        from aptlab.continual.herding import rank_by_herding

        del seed
        assert features is not None
        order = rank_by_herding(features, self.most, normalize=self.normalize)
        keys = np.full(len(numbers), self.most, dtype=np.uint64)
        keys[order] = np.arange(len(order), dtype=np.uint64)
        return keys
