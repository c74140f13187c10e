"""A search with Optuna: what is searched, by which rule. The loop is in `trials`."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aptlab.errors import ConfigError, suggest_option
from aptlab.limits import NonNegativeInt, PositiveInt, validate_limits
from aptlab.sweep.grid import check_sweep_name
from aptlab.sweep.job import make_sweep_name

if TYPE_CHECKING:
    from aptlab.config.sweeps import ChoiceAxis, IntervalAxis
    from aptlab.sweep.request import Compose
    from aptlab.sweep.trials import OptunaWork

DIRECTIONS = ("minimize", "maximize")
SAMPLERS = ("tpe", "random")
METRICS = ("val/loss", "val/ppl", "val/bpb", "train/loss", "tokens/s", "ppl@1x", "ppl@2x", "ppl@4x", "ppl@8x")


@dataclass(frozen=True)
class OptunaSearch:
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
        validate_limits(self)
        check_sweep_name(self.name)
        for key, options in (("metric", METRICS), ("direction", DIRECTIONS), ("sampler", SAMPLERS)):
            value = getattr(self, key)
            if value not in options:
                raise ConfigError(f"{key}={value}: no such {key}{suggest_option(value, options)}")
        if importlib.util.find_spec("optuna") is None:
            raise ConfigError("sweep=optuna needs optuna; pip install 'aptlab[search]'")

    def plan(self, overrides: Sequence[str], compose: Compose) -> OptunaWork:
        """Check every choice and both ends of every interval, one at a time; ConfigError with every problem."""
        from aptlab.config.sweeps import read_sweep_axes
        from aptlab.sweep.request import check_jobs
        from aptlab.sweep.trials import OptunaWork

        fixed, space = read_sweep_axes(overrides)
        if not space:
            raise ConfigError("sweep=optuna has nothing to search; add for example 'optim.lr=interval(1e-4,1e-2)'")
        corners = [[f"{axis.key}={value}" for value in list_axis_ends(axis)] for axis in space]
        base = [corner[0] for corner in corners]
        tried = [(*base[:i], value, *base[i + 1 :]) for i, corner in enumerate(corners) for value in corner]
        jobs, first = check_jobs([[*fixed, *trial] for trial in dict.fromkeys(tried)], compose)
        extra = [*map(repr, space), self.metric, self.direction]
        return OptunaWork(self, self.name or make_sweep_name((job.key for job in jobs), extra), first, fixed, space)


def list_axis_ends(axis: ChoiceAxis | IntervalAxis) -> list[str]:
    """The values of an axis that are checked before a search begins: all choices, both ends of an interval."""
    values = getattr(axis, "values", None)
    return list(values) if values else [repr(axis.low), repr(axis.high)]  # type: ignore[union-attr]
