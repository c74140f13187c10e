"""A search with Optuna: what is searched, by which rule. The loop is in `trials`."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aptlab.commands.sweep.grid import check_name
from aptlab.commands.sweep.job import sweep_name
from aptlab.errors import ConfigError, suggest
from aptlab.limits import NonNegativeInt, PositiveInt, validate

if TYPE_CHECKING:
    from aptlab.commands.sweep.request import Compose
    from aptlab.commands.sweep.trials import SearchWork
    from aptlab.config.sweeps import Choice, Interval

DIRECTIONS = ("minimize", "maximize")
SAMPLERS = ("tpe", "random")
METRICS = ("val/loss", "val/ppl", "val/bpb", "train/loss", "tokens/s", "ppl@1x", "ppl@2x", "ppl@4x", "ppl@8x")


@dataclass(frozen=True)
class Search:
    """A sweep that chooses its jobs: up to `trials` finished ones, the best by `metric`.

    `sampler` is tpe (Bergstra et al. 2011, "Algorithms for Hyper-Parameter Optimization") or random, seeded by
    `seed`; `name` and `fresh` are as in Grid; with `retry_failed` a failed trial is replaced by a new one when the
    search is continued. Optuna: Akiba et al. 2019, arXiv:1907.10902.
    """

    trials: PositiveInt = 20
    metric: str = "val/loss"
    direction: str = "minimize"
    sampler: str = "tpe"
    seed: NonNegativeInt = 0
    name: str | None = None
    fresh: bool = False
    retry_failed: bool = True

    def __post_init__(self) -> None:
        validate(self)
        check_name(self.name)
        for key, options in (("metric", METRICS), ("direction", DIRECTIONS), ("sampler", SAMPLERS)):
            value = getattr(self, key)
            if value not in options:
                raise ConfigError(f"sweep.{key}={value}: no such {key}{suggest(value, options)}")
        if importlib.util.find_spec("optuna") is None:
            raise ConfigError("sweep=optuna needs optuna; pip install 'aptlab[search]'")

    def plan(self, overrides: Sequence[str], compose: Compose) -> SearchWork:
        """Check every choice and both ends of every interval, one at a time; ConfigError with every problem."""
        from aptlab.commands.sweep.request import check_jobs
        from aptlab.commands.sweep.trials import SearchWork
        from aptlab.config.sweeps import distributions

        fixed, space = distributions(overrides)
        if not space:
            raise ConfigError("sweep=optuna has nothing to search; add for example 'optim.lr=interval(1e-4,1e-2)'")
        corners = [[f"{axis.key}={value}" for value in ends(axis)] for axis in space]
        base = [corner[0] for corner in corners]
        tried = [(*base[:i], value, *base[i + 1 :]) for i, corner in enumerate(corners) for value in corner]
        jobs, first = check_jobs([[*fixed, *trial] for trial in dict.fromkeys(tried)], compose)
        extra = [*map(repr, space), self.metric, self.direction]
        return SearchWork(self, self.name or sweep_name((job.key for job in jobs), extra), first, fixed, space)


def ends(axis: Choice | Interval) -> list[str]:
    """The values of an axis that are checked before a search begins: all choices, both ends of an interval."""
    values = getattr(axis, "values", None)
    return list(values) if values else [repr(axis.low), repr(axis.high)]  # type: ignore[union-attr]
