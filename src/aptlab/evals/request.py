"""What an `eval` request asks for, checked without torch as far as the checkpoint's own values allow."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aptlab.config import Config, check, compose, expand_shortcuts, fill_request, find_new_word
from aptlab.errors import ConfigError
from aptlab.limits import NonNegativeInt, PositiveInt
from aptlab.restore.rope import fill_inherited_values

if TYPE_CHECKING:
    from aptlab.device import Precision

OWN = {
    "context": "choose lengths with multiples=[1,2,4,8]",
    "seed": "the measured text is chosen without chance",
    "tokenizer": "the weights know no other",
}
GROUPS = {"rope": "rope=yarn", "source": "source=text", "data": "data=packed"}
DEFAULT = "lengths"  # the option of `eval` without a word
# Stand-ins for the check before the checkpoint is open; `Request.filled` puts the real values in.
STAND_IN = {"context": 1024, "seed": 0, "tokenizer": {"_target_": "aptlab.data.tokenizers.ByteTokenizer"}}
SOURCE = {"_target_": "aptlab.data.sources.Stdlib"}


@dataclass(frozen=True, kw_only=True)
class EvalRequest:
    """What `aptlab eval` is asked for; `config` still lacks what only the checkpoint knows.

    config     the composed configuration, with its groups
    ckpt       last, best, a checkpoint or a run folder
    multiples  lengths to measure, in multiples of the trained context, where the eval has none of its own
    tokens     validation tokens, the same ones at every length
    precision  auto is bf16-mixed on CUDA, else 32-true
    out        folder for results, and to go on in; None: evals/<time> in the folder of the run
    context    comes from the checkpoint
    seed       comes from the checkpoint
    """

    config: Config
    ckpt: str
    multiples: list[PositiveInt]
    tokens: PositiveInt
    precision: Precision
    out: str | None
    context: PositiveInt | None = None
    seed: NonNegativeInt | None = None

    def filled(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        """The whole request as plain values, where `${context}` and its like mean what the model was trained with.

        A rule on these weights has their base, layout and part of a head, unless the user gave others.
        """
        return fill_config(self.config, stored, OWN)


def read_eval_request(args: list[str]) -> EvalRequest:
    """The request of a command line; ConfigError lists every problem."""
    args = expand_shortcuts(args)
    refuse_eval_keys(args)
    config = compose("eval", args)
    complete = replace_config_values(config, {**STAND_IN, **fill_source(config, SOURCE)})
    check(complete)
    if complete.resolved().get("eval") is None:
        raise ConfigError(f"eval=null measures nothing; leave it out for eval={DEFAULT}, or choose one: aptlab ls eval")
    return fill_request(EvalRequest, config)


def refuse_eval_keys(args: list[str]) -> None:
    """Keys that are the checkpoint's, and values of groups that are not chosen."""
    given = list_override_keys(args)
    problems = [f"{key}: is that of the checkpoint; {why}" for key, why in OWN.items() if sets_key(key, given)]
    problems += find_unchosen_groups(given, GROUPS)
    if problems:
        raise ConfigError("\n".join(problems))


def find_unchosen_groups(given: Collection[str], groups: Mapping[str, str]) -> list[str]:
    """A problem for each group of which values are given and no option; old words are told when composing."""
    problems = []
    for group, example in groups.items():
        inner = sorted(key for key in given if key.startswith(f"{group}.") and find_new_word(key) is None)
        if inner and group not in given:
            problems.append(f"{inner[0]}: choose the option first, as in {example} {inner[0]}=…")
    return problems


def fill_source(config: Config, source: Mapping[str, Any] | None) -> dict[str, Any]:
    """The source for a request that chooses rows and no source: that of the checkpoint."""
    chosen = config.choices
    return {"source": source} if chosen.get("data") is not None and chosen.get("source") is None else {}


def fill_config(config: Config, stored: Mapping[str, Any], own: Iterable[str]) -> dict[str, Any]:
    """Plain values, with the checkpoint's for the keys in `own` and for what a rule has from the weights."""
    known = {name: stored.get(name) for name in own}
    source = fill_source(config, (stored.get("data") or {}).get("source"))
    values = replace_config_values(config, {**known, **source}).resolved()
    return fill_inherited_values(values, stored.get("rope"), list_override_keys(config.overrides))


def list_override_keys(overrides: Iterable[str]) -> frozenset[str]:
    """What a command line sets."""
    return frozenset(arg.partition("=")[0].lstrip("+~") for arg in overrides)


def sets_key(key: str, given: Collection[str]) -> bool:
    return any(name == key or name.startswith(f"{key}.") for name in given)


def replace_config_values(config: Config, values: Mapping[str, Any]) -> Config:
    return config.replaced(values)
