"""A search with Optuna: which options it takes, and the ask and tell loop over its study."""

from __future__ import annotations

import importlib.util
import logging
import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aptlab.config.sweeps import read_sweep_axes
from aptlab.errors import AptlabError, ConfigError, suggest_option
from aptlab.limits import NonNegativeInt, PositiveInt, validate_limits
from aptlab.redact import redact_overrides
from aptlab.report.comparison import find_metric
from aptlab.report.validation import FREE, PER_BYTE
from aptlab.runs import Result
from aptlab.sweep.check_jobs import check_jobs
from aptlab.sweep.comparable import check_comparable
from aptlab.sweep.job import SweepJob, hash_experiment, make_sweep_name
from aptlab.sweep.plan import ComposeJob, SweepPlan, SweepRule, SweepState, check_sweep_name
from aptlab.sweep.study import Axis, list_axis_ends, make_distribution, open_study

DIRECTIONS = ("minimize", "maximize")
SAMPLERS = ("tpe", "random")
METRICS = ("val/loss", "val/ppl", "val/bpb", "train/loss", "tokens/s", "ppl@1x", "ppl@2x", "ppl@4x", "ppl@8x")
log = logging.getLogger("aptlab")
UNFINISHED = ("RUNNING", "WAITING")  # Optuna's states of a trial whose end nobody recorded


@dataclass(frozen=True)
class OptunaSearch(SweepRule):
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

    def make_plan(self, overrides: Sequence[str], compose: ComposeJob) -> OptunaPlan:
        """Check every choice and both ends of every interval, one at a time; ConfigError with every problem."""
        fixed, space = read_sweep_axes(overrides)
        if not space:
            raise ConfigError("sweep=optuna has nothing to search; add for example 'optim.lr=interval(1e-4,1e-2)'")
        corners = [[f"{axis.key}={value}" for value in list_axis_ends(axis)] for axis in space]
        base = [corner[0] for corner in corners]
        tried = [[(*base[:i], value, *base[i + 1 :]) for value in corner] for i, corner in enumerate(corners)]
        made: dict[tuple[str, ...], Any] = {}

        def compose_once(words: list[str]) -> Any:
            made[tuple(words[len(fixed) :])] = config = compose(words)
            return config

        distinct = dict.fromkeys(trial for trials in tried for trial in trials)
        jobs, first = check_jobs([[*fixed, *trial] for trial in distinct], compose_once)
        axes = [[(trial[i], made[trial].resolved()) for trial in trials] for i, trials in enumerate(tried)]
        check_comparable(self.metric, first.resolved(), axes)
        extra = [*map(repr, space), self.metric, self.direction]
        name = self.name or make_sweep_name((job.key for job in jobs), extra)
        plan = OptunaPlan(self, name, first, fixed=fixed, space=space)
        plan.corners, plan.named_for = jobs, extra
        return plan


class OptunaPlan(SweepPlan):
    """A checked search and, once opened, its study. A trial's number is its job's number."""

    kind = "optuna"

    def __init__(
        self, rule: OptunaSearch, name: str, config: Any, *, fixed: Sequence[str], space: Sequence[Axis]
    ) -> None:
        self.name, self.config, self.metric = name, config, rule.metric
        self.fresh, self.retry_failed = rule.fresh, rule.retry_failed
        self._rule, self._fixed, self._space = rule, list(fixed), list(space)
        self._study: Any = None
        self.corners: Sequence[SweepJob] = ()  # jobs that were checked, and what else the sweep is named for
        self.named_for: Sequence[str] = ()
        self._unfinished: set[int] = set()
        self._failed_before = 0
        self._text: Any = None
        self._other_text: list[int] = []

    def find_earlier_name(self, root: str) -> str | None:
        """See SweepPlan."""
        if self._rule.name is not None:
            return None
        return make_sweep_name((job.make_earlier_key(root) for job in self.corners), self.named_for)

    def open_jobs(self, folder: Path, numbers: Mapping[str, int]) -> list[SweepJob]:
        """The trials of the study that are complete, or were running when an earlier parent died."""
        rule = self._rule
        self._study = open_study(
            folder / "study.db",
            name=self.name,
            direction=rule.direction,
            sampler=rule.sampler,
            seed=rule.seed,
            about={"space": [repr(axis) for axis in self._space], "metric": rule.metric},
        )
        trials = self._study.get_trials(deepcopy=False)
        unfinished = [trial for trial in trials if trial.state.name in UNFINISHED]
        complete = [trial for trial in trials if trial.state.name == "COMPLETE"]
        self._unfinished = {trial.number for trial in unfinished}
        self._failed_before = len(trials) - len(complete) - len(unfinished)
        return [self._make_job(trial) for trial in sorted(complete + unfinished, key=lambda trial: trial.number)]

    def count_jobs(self, state: SweepState) -> int:
        """As many as were asked for, or as there are already."""
        return max(self._rule.trials, self._count_done(state))

    def next_jobs(self, state: SweepState) -> Iterator[SweepJob]:
        """Trials that were cut off, then new ones, until as many have been tried as were asked for."""
        budget = max(0, self._rule.trials - self._count_done(state))
        left = [job for job in state.pending if job.index in self._unfinished][:budget]
        yield from left
        for _ in range(budget - len(left)):
            yield self._make_job(self._study.ask({axis.key: make_distribution(axis) for axis in self._space}))

    def record_result(self, job: SweepJob, result: Result | None) -> None:
        """Tell the study, unless it knows; a number that is not finite is a failure too."""
        trial = self._study.get_trials(deepcopy=False)[job.index]
        comparable = result is not None and self._has_same_text(job, result)
        value = self._read_metric(result) if result is not None and comparable else None
        if trial.state.name not in UNFINISHED:
            if comparable and trial.state.name == "COMPLETE" and trial.value != value:
                raise AptlabError(
                    f"study.db says {self.metric} {trial.value} of trial {trial.number}, and its result.json {value}: "
                    "one of them was changed; use sweep.fresh=true or another sweep.name"
                )
            return
        if value is None or not math.isfinite(value):
            from optuna.trial import TrialState

            self._study.tell(job.index, state=TrialState.FAIL)
        else:
            self._study.tell(job.index, value)

    def describe_best(self) -> list[str]:
        """The best trial and the command that repeats it."""
        done = [trial for trial in self._study.get_trials(deepcopy=False) if trial.state.name == "COMPLETE"]
        if not done:
            return []
        best = self._study.best_trial
        job = self._make_job(best)
        return [
            f"best     {self.metric} {best.value:.6g} in trial {best.number} of {len(done)}: {job.name}",
            f"repeat   aptlab train {shlex.join(redact_overrides(job.overrides))}",
            *([f"left out {len(self._other_text)} of other text"] if self._other_text else []),
        ]

    def _has_same_text(self, job: SweepJob, result: Result) -> bool:
        """Whether a trial was measured on the text of the first one; files may change while a search goes on."""
        text = result.data.get("val_text" if self.metric == PER_BYTE else "fingerprint")
        if self.metric in FREE or text is None:
            return True
        if self._text is None:
            self._text = text
        if text != self._text:
            self._other_text.append(job.index)
            log.warning(
                "trial %d was measured on other text than the trials before, so its %s does not count: the files have "
                "changed; begin anew with sweep.fresh=true",
                job.index,
                self.metric,
            )
        return text == self._text

    def _count_done(self, state: SweepState) -> int:
        """Trials that are not tried again; asked before the first job is run, so `failed` is of earlier invocations."""
        lost = 0 if self.retry_failed else self._failed_before + len(state.failed)
        return len(state.results) + lost

    def _read_metric(self, result: Result) -> float | None:
        try:
            return find_metric(self.metric, [result]).get(result)
        except AptlabError:  # a result without this number is a failed trial, not the end of the search
            return None

    def _make_job(self, trial: Any) -> SweepJob:
        values = {axis.key: trial.params[axis.key] for axis in self._space}
        overrides = (*self._fixed, *(f"{key}={_exact(value)}" for key, value in values.items()))
        names = tuple(f"{key}={_short(value)}" for key, value in values.items())
        return SweepJob(overrides, hash_experiment(overrides, f"trial {trial.number}"), names, trial.number)


def _exact(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
