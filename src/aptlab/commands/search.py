"""`aptlab search`: factors of LongRoPE or LongRoPE2 for a longer context, as an option that `rope=` can use at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from aptlab.config import Config, build, check, compose
from aptlab.config.root_keys import DIALS, find_root_key_problem
from aptlab.device.threads import limit_idle_spin
from aptlab.errors import ConfigError
from aptlab.restore.request import STAND_IN, fill_config, list_override_keys, replace_config_values, sets_key
from aptlab.search.settings import SearchSettings

STORED = {
    "context": "set the length to reach with target=…, and that of training with rope.original_len=…",
    "tokenizer": "the weights know no other",
}
FOUND = ("rope.long", "rope.short", "rope.factor", "rope.target_len")
STANDING = {name: value for name, value in STAND_IN.items() if name != "seed"}


@dataclass(frozen=True, kw_only=True)
class SearchRequest:
    """A checked request; `config` still lacks what only the checkpoint knows."""

    config: Config
    settings: SearchSettings
    target: int

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

    search_checkpoint(request.config, request.settings, request.target, request.filled)
    return 0


def read_search_request(args: list[str]) -> SearchRequest:
    """The request of a command line; ConfigError lists every problem."""
    refuse_search_keys(list_override_keys(args))
    config = compose("search", args)
    plain = {key: config.cfg[key] for key in DIALS["search"]}
    problems = [
        f"{key}: {text}" for key, value in plain.items() if (text := find_root_key_problem("search", key, value))
    ]
    if problems:
        raise ConfigError("\n".join(problems))
    check(replace_config_values(config, STANDING))
    return SearchRequest(config=config, settings=build(config.cfg.search), target=plain["target"])


def refuse_search_keys(given: frozenset[str]) -> None:
    """Keys that are the checkpoint's or the search's own."""
    problems = [f"{key}: is that of the checkpoint; {why}" for key, why in STORED.items() if sets_key(key, given)]
    problems += [f"{key}: is what target=… and the search say; leave it out" for key in FOUND if key in given]
    if "data" not in given and (inner := sorted(key for key in given if key.startswith("data."))):
        problems.append(f"{inner[0]}: choose the option first, as in data=text {inner[0]}=…")
    if problems:
        raise ConfigError("\n".join(problems))
