"""The Optuna study of a search: a file in the sweep's folder, so that it can be continued, and how it proposes values.

Optuna is imported only when a function is called.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from aptlab.config.sweeps import ChoiceAxis, IntervalAxis
from aptlab.errors import AptlabError

Axis = ChoiceAxis | IntervalAxis


def open_study(file: Path, *, name: str, direction: str, sampler: str, seed: int, about: Mapping[str, Any]) -> Any:
    """Open or make the study in `file`.

    about  plain values that a study keeps and that must be the same when it is continued
    Raises AptlabError if the file is damaged, or is the study of something else; `name` is named.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(
            study_name="sweep", storage=f"sqlite:///{file}", direction=cast(Any, direction), load_if_exists=True
        )
        for key, value in about.items():
            if study.user_attrs.setdefault(key, value) != value:
                raise AptlabError(
                    f"sweep.name={name} searched another {key} before; take another name or sweep.fresh=true"
                )
            study.set_user_attr(key, value)
        # Seeded by the number of trials there are: the same seed would propose the first trials again.
        study.sampler = make_sampler(sampler, seed + len(study.get_trials(deepcopy=False)))
    except optuna.exceptions.OptunaError as error:
        raise AptlabError(f"{file} cannot be used: {error}; use sweep.fresh=true") from error
    return study


def make_sampler(name: str, seed: int) -> Any:
    """The Optuna sampler `tpe` or `random`."""
    import optuna

    if name == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # Trials that run side by side count as bad until they end, or they would all be alike.
        return optuna.samplers.TPESampler(seed=seed, constant_liar=True)


def make_distribution(axis: Axis) -> Any:
    """The Optuna distribution of an axis."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(axis, ChoiceAxis):
        return CategoricalDistribution(axis.values)
    if axis.integer:
        return IntDistribution(int(axis.low), int(axis.high), log=axis.log)
    return FloatDistribution(float(axis.low), float(axis.high), log=axis.log)


def list_axis_ends(axis: Axis) -> list[str]:
    """The values of an axis that are checked before a search begins: all choices, both ends of an interval."""
    return list(axis.values) if isinstance(axis, ChoiceAxis) else [repr(axis.low), repr(axis.high)]
