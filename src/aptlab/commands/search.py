"""`aptlab search`: factors of LongRoPE or LongRoPE2 for a longer context, as an option that `rope=` can use at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aptlab.config import Config, build, check, compose, expand_shortcuts, fill_request, inspect_inputs
from aptlab.device.threads import limit_idle_spin
from aptlab.errors import ConfigError
from aptlab.limits import NonNegativeInt, OptionName, PositiveInt
from aptlab.restore.request import (
    SOURCE,
    STAND_IN,
    fill_config,
    fill_source,
    find_unchosen_groups,
    list_override_keys,
    put_data_places,
    replace_config_values,
    sets_key,
    show_config,
    split_data_places,
)
from aptlab.search.settings import SearchSettings

if TYPE_CHECKING:
    from aptlab.device import Precision

STORED = {
    "context": "set the length to reach with target=…, and that of training with rope.original_len=…",
    "tokenizer": "the weights know no other",
}
FOUND = ("rope.long", "rope.short", "rope.factor", "rope.target_len")
STANDING = {name: value for name, value in STAND_IN.items() if name != "seed"}


@dataclass(frozen=True, kw_only=True)
class SearchRequest:
    """What `aptlab search` is asked for; `config` still lacks what only the checkpoint knows.

    config     the composed configuration, with its groups
    ckpt       last, best, a checkpoint or a run folder
    target     the context to reach, in tokens
    search     how factors are searched
    seed       of candidates and needles; the same seed finds the same factors
    workers    processes; None: one per CUDA device, else one per CPU core (at most 8)
    precision  auto is bf16-mixed on CUDA, else 32-true
    name       of the option written to ./conf/rope; None: <rope>_<target>
    out        folder of journal, figure and result; None: searches/<hash> in the folder of the run
    context    comes from the checkpoint
    """

    config: Config
    ckpt: str
    target: PositiveInt
    search: SearchSettings
    seed: NonNegativeInt
    workers: PositiveInt | None
    precision: Precision
    name: OptionName | None
    out: str | None
    context: PositiveInt | None = None

    def filled(self, stored: dict[str, Any]) -> dict[str, Any]:
        """The whole request as plain values, where `${context}` means what the model was trained with.

        As in `eval`, a rule on these weights has their base, layout and part of a head, unless the user gave others.
        """
        return fill_config(self.config, stored, STORED)


def run(args: list[str]) -> int:
    """Check the request without torch, then search, or go on with a search that was stopped; returns 0."""
    request = read_search_request(args)
    limit_idle_spin()
    from aptlab.search.runner import search_checkpoint

    search_checkpoint(request.config, request.search, request.target, request.filled)
    return 0


def resolve_config(args: list[str]) -> dict[str, Any]:
    """What `--cfg` prints: the request with what the search takes from the checkpoint."""
    args, places = split_data_places(expand_shortcuts(args))
    return show_config(put_data_places(compose("search", args), places), STORED)


def read_search_request(args: list[str]) -> SearchRequest:
    """The request of a command line; ConfigError lists every problem."""
    args, places = split_data_places(expand_shortcuts(args))
    refuse_search_keys(list_override_keys(args))
    config = compose("search", args)
    if config.cfg.target is None:
        raise ConfigError("target: a length is needed, in tokens, as in target=2048")
    complete = replace_config_values(config, {**STANDING, **fill_source(config, SOURCE)})
    check(complete)
    inspect_inputs(complete)
    config = put_data_places(config, places)
    return fill_request(SearchRequest, config, search=build(config.cfg.search))


def refuse_search_keys(keys: frozenset[str]) -> None:
    """Keys that are the checkpoint's or the search's own."""
    problems = [f"{key}: is that of the checkpoint; {why}" for key, why in STORED.items() if sets_key(key, keys)]
    problems += [f"{key}: is what target=… and the search say; leave it out" for key in FOUND if key in keys]
    problems += find_unchosen_groups(keys, {"source": "source=text", "data": "data=packed"})
    if problems:
        raise ConfigError("\n".join(problems))
