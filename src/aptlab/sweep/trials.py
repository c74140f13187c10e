"""The ask and tell loop of a search; the study is a file in the sweep's folder, so that it can be continued."""

from __future__ import annotations

import math
import shlex
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

from aptlab.errors import AptlabError
from aptlab.redact import redact_overrides
from aptlab.runs import Result
from aptlab.sweep.job import JobCommand, SweepJob, hash_experiment

if TYPE_CHECKING:
    from aptlab.config.sweeps import ChoiceAxis, IntervalAxis
    from aptlab.sweep.optuna_search import OptunaSearch
    from aptlab.sweep.runner import SweepRun

OPEN = ("RUNNING", "WAITING")


class OptunaWork:
    """A checked search and, once opened, its Optuna study. A trial's number is its job's number."""

    kind = "optuna"

    def __init__(
        self,
        search: OptunaSearch,
        name: str,
        config: Any,
        fixed: Sequence[str],
        space: Sequence[ChoiceAxis | IntervalAxis],
    ) -> None:
        self.name, self.config, self.metric = name, config, search.metric
        self._search, self._fixed, self._space = search, list(fixed), list(space)
        self._study: Any = None
        self._budget = 0

    def open(self, session: SweepRun) -> None:
        """Open or make the study; trials that were running when an earlier parent died become jobs to do."""
        self._study = study = self._open(session)
        old = study.get_trials(deepcopy=False)
        unfinished = [trial for trial in old if trial.state.name in OPEN]
        complete = [trial for trial in old if trial.state.name == "COMPLETE"]
        session.take([self._job(trial) for trial in sorted(complete + unfinished, key=lambda trial: trial.number)])
        waiting = {trial.number for trial in unfinished}
        for number in waiting & session.results.keys():  # it ended, but its parent died before it told the study
            self._tell(number, session.results[number])
        session.todo = [job for job in session.todo if job.index in waiting]
        lost = 0 if self._search.retry_failed else len(old) - len(complete) - len(unfinished) + len(session.failed)
        done = len(session.results) + lost
        self._budget = max(0, self._search.trials - done)
        session.total = max(self._search.trials, done)

    def tasks(self, session: SweepRun) -> Iterator[JobCommand]:
        """Trials that were cut off, then new ones, until as many have been tried as were asked for."""
        left = list(session.todo)
        for _ in range(self._budget):
            if session.interrupted:
                return
            yield session.task(left.pop(0) if left else self._ask(session))

    def told(self, session: SweepRun, job: SweepJob, result: Result | None) -> None:
        """Tell the study; an interrupted trial stays open and is continued next time."""
        if result is not None or not session.interrupted:
            self._tell(job.index, result)

    def closing(self, session: SweepRun) -> list[str]:
        """The best trial and the command that repeats it."""
        done = [trial for trial in self._study.get_trials(deepcopy=False) if trial.state.name == "COMPLETE"]
        if not done:
            return []
        best = self._study.best_trial
        job = self._job(best)
        return [
            f"best     {self.metric} {best.value:.6g} in trial {best.number} of {len(done)}: {job.name}",
            f"repeat   aptlab train {shlex.join(redact_overrides(job.overrides))}",
        ]

    def _open(self, session: SweepRun) -> Any:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        search, file = self._search, session.folder.path / "study.db"
        storage = f"sqlite:///{file}"
        try:
            study = optuna.create_study(
                study_name="sweep", storage=storage, direction=cast(Any, search.direction), load_if_exists=True
            )
            about = {"space": [repr(axis) for axis in self._space], "metric": search.metric}
            for key, value in about.items():
                if study.user_attrs.setdefault(key, value) != value:
                    raise AptlabError(
                        f"sweep.name={self.name} searched another {key} before; take another name or sweep.fresh=true"
                    )
                study.set_user_attr(key, value)
            # Seeded by the number of trials there are: the same seed would propose the first trials again.
            study.sampler = self._sampler(search.seed + len(study.get_trials(deepcopy=False)))
        except optuna.exceptions.OptunaError as error:
            raise AptlabError(f"{file} cannot be used: {error}; use sweep.fresh=true") from error
        return study

    def _sampler(self, seed: int) -> Any:
        import optuna

        if self._search.sampler == "random":
            return optuna.samplers.RandomSampler(seed=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            # Trials that run side by side count as bad until they end, or they would all be alike.
            return optuna.samplers.TPESampler(seed=seed, constant_liar=True)

    def _ask(self, session: SweepRun) -> SweepJob:
        trial = self._study.ask({axis.key: make_distribution(axis) for axis in self._space})
        job = self._job(trial)
        session.add(job)
        return job

    def _tell(self, number: int, result: Result | None) -> None:
        """A result, or a failure; a number that is not finite is a failure too."""
        value = None if result is None else self._value(result)
        if value is None or not math.isfinite(value):
            from optuna.trial import TrialState

            self._study.tell(number, state=TrialState.FAIL)
        else:
            self._study.tell(number, value)

    def _value(self, result: Result) -> float | None:
        from aptlab.report.comparison import find_metric

        try:
            return find_metric(self.metric, [result]).get(result)
        except AptlabError:
            return None

    def _job(self, trial: Any) -> SweepJob:
        values = {axis.key: trial.params[axis.key] for axis in self._space}
        overrides = (*self._fixed, *(f"{key}={_exact(value)}" for key, value in values.items()))
        names = tuple(f"{key}={_short(value)}" for key, value in values.items())
        return SweepJob(overrides, hash_experiment(overrides, f"trial {trial.number}"), names, trial.number)


def make_distribution(axis: ChoiceAxis | IntervalAxis) -> Any:
    """The Optuna distribution of an axis."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    from aptlab.config.sweeps import ChoiceAxis

    if isinstance(axis, ChoiceAxis):
        return CategoricalDistribution(axis.values)
    if axis.integer:
        return IntDistribution(int(axis.low), int(axis.high), log=axis.log)
    return FloatDistribution(float(axis.low), float(axis.high), log=axis.log)


def _exact(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
