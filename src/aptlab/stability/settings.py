"""What a bench of stability is asked for, and the trainings that it is made of. No torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aptlab.errors import ConfigError, suggest_option
from aptlab.limits import Positive, PositiveInt, validate_limits

STRESSES: Mapping[str, tuple[str, ...]] = {  # name -> overrides; what these cannot say is in `stresses`
    "rate": (),
    "branch": (),
    "embedding": (),
    "gradient": (),
    "data": (),
    "no_warmup": ("schedule.warmup=0",),
    "beta2": ("optim.beta2=0.999",),
}
PRECISIONS: Mapping[str, str] = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
TUNING = "tuning"
# A training of a second on a CPU. What the user says comes after it.
SMALL = ("size=debug", "context=64", "data.batch=8", "trainer.max_steps=100", "evals=null")


@dataclass(frozen=True, kw_only=True)
class StabilitySettings:
    """The grid: stress x precision x rate x seed for every method, and where it goes.

    stress      names of STRESSES; "rate" is none but the rate itself
    precisions  fp32, bf16, fp16 (with a loss scaler; a GPU alone)
    rates       multiples of a method's own tuned rate
    tune        multiples of optim.lr that are tried for each method, in fp32 without stress; the one with the smallest
                loss is its tuned rate. The same number for all, so that no method is searched for longer
    seeds       0, 1, …
    seconds     after which no further training begins; None = all of them
    out         folder of journal, tables and figures
    """

    stress: tuple[str, ...] = ("rate",)
    precisions: tuple[str, ...] = ("fp32",)
    rates: tuple[float, ...] = (1.0, 3.0, 10.0, 30.0, 100.0)
    tune: tuple[float, ...] = (0.3, 1.0, 3.0)
    seeds: PositiveInt = 3
    seconds: Positive | None = None
    out: str = "outputs/bench/stability"

    def __post_init__(self) -> None:
        validate_limits(self)
        for name, values, allowed in (
            ("stress", self.stress, STRESSES),
            ("precisions", self.precisions, PRECISIONS),
        ):
            for value in values:
                if value not in allowed:
                    raise ConfigError(f"bench.{name}={value}{suggest_option(value, allowed)}")
        for name, rates in (("rates", self.rates), ("tune", self.tune)):
            if not rates or min(rates) <= 0:
                raise ConfigError(
                    f"bench.{name}={list(rates)}: multiples of a rate are above 0, and there is at least one"
                )

    @classmethod
    def from_words(cls, words: Sequence[str]) -> StabilitySettings:
        """The settings of `bench.rates=1,10 bench.seeds=5`; ConfigError for a key or a number that is none."""
        fields = {field.name: field for field in dataclasses.fields(cls)}
        given: dict[str, Any] = {}
        for word in words:
            key, _, text = word.partition("=")
            name = key.removeprefix("bench.")
            if name not in fields:
                raise ConfigError(f"{key}: bench has no such value{suggest_option(name, fields)}")
            given[name] = read_value(key, text, fields[name].default)
        return cls(**given)


def read_value(key: str, text: str, default: Any) -> Any:
    """A value in the form of its default: numbers and names apart by commas, one number, or a text."""
    items = [item.strip() for item in text.strip("[]").split(",") if item.strip()]
    try:
        if isinstance(default, tuple):
            return tuple(items) if isinstance(default[0], str) else tuple(map(float, items))
        if isinstance(default, str):
            return text
        return int(text) if isinstance(default, int) else None if text == "null" else float(text)
    except ValueError:
        raise ConfigError(f"{key}={text}: is no number, or a list of numbers as in bench.rates=1,10") from None


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One training: the method's own overrides, the stress, the precision, the multiple of a rate, and the seed."""

    method: tuple[str, ...]
    stress: str
    precision: str
    multiple: float
    seed: int

    @property
    def key(self) -> str:
        """What it is known by in the journal."""
        return "|".join((" ".join(self.method), self.stress, self.precision, f"{self.multiple:g}", str(self.seed)))

    def list_words(self, rate: float) -> list[str]:
        """Overrides of its training, `rate` being the method's: what `multiple` multiplies."""
        stress = STRESSES.get(self.stress, ())
        words = [f"seed={self.seed}", f"optim.lr={rate * self.multiple:.9g}", f"precision={PRECISIONS[self.precision]}"]
        return [*SMALL, *self.method, *stress, *words]


def list_tuning(method: tuple[str, ...], settings: StabilitySettings) -> list[Trial]:
    """The trials that find a method's rate, of seed 0 alone."""
    return [
        Trial(method=method, stress=TUNING, precision="fp32", multiple=multiple, seed=0) for multiple in settings.tune
    ]


def list_trials(methods: Sequence[tuple[str, ...]], settings: StabilitySettings) -> Iterator[Trial]:
    """All trials, seeds outermost: where time runs out, every method has as many."""
    for seed in range(settings.seeds):
        for stress in settings.stress:
            for precision in settings.precisions:
                for multiple in settings.rates:
                    for method in methods:
                        yield Trial(method=method, stress=stress, precision=precision, multiple=multiple, seed=seed)
