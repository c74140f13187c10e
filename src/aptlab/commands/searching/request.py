"""What a `search` request asks for, checked without torch as far as the checkpoint's own values allow."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aptlab.commands.evaluating.request import STAND_IN, belongs, filled, keys, with_values
from aptlab.config import Config, check, compose
from aptlab.config.dials import DIALS, dial_problem
from aptlab.errors import ConfigError
from aptlab.search.settings import Settings

OWN = {
    "context": "set the length to reach with target=…, and that of training with rope.original_len=…",
    "tokenizer": "the weights know no other",
}
FOUND = ("rope.long", "rope.short", "rope.factor", "rope.target_len")
STANDING = {name: value for name, value in STAND_IN.items() if name != "seed"}


@dataclass(frozen=True, kw_only=True)
class Request:
    """A checked request; `config` still lacks what only the checkpoint knows."""

    config: Config
    settings: Settings
    target: int

    def filled(self, stored: dict[str, Any]) -> dict[str, Any]:
        """The whole request as plain values, where `${context}` means what the model was trained with.

        As in `eval`, a rule on these weights has their base, layout and part of a head, unless the user gave others.
        """
        return filled(self.config, stored, OWN)


def read(args: list[str]) -> Request:
    """The request of a command line; ConfigError lists every problem."""
    refuse(keys(args))
    config = compose("search", args)
    plain = {key: config.cfg[key] for key in DIALS["search"]}
    problems = [f"{key}: {text}" for key, value in plain.items() if (text := dial_problem("search", key, value))]
    if problems:
        raise ConfigError("\n".join(problems))
    check(with_values(config, STANDING))
    node = {key: value for key, value in config.resolved()["search"].items() if key != "_target_"}
    return Request(config=config, settings=Settings(**node), target=plain["target"])


def refuse(given: frozenset[str]) -> None:
    """Keys that are the checkpoint's or the search's own."""
    problems = [f"{key}: is that of the checkpoint; {why}" for key, why in OWN.items() if belongs(key, given)]
    problems += [f"{key}: is what target=… and the search say; leave it out" for key in FOUND if key in given]
    if "data" not in given and (inner := sorted(key for key in given if key.startswith("data."))):
        problems.append(f"{inner[0]}: choose the option first, as in data=text {inner[0]}=…")
    if problems:
        raise ConfigError("\n".join(problems))


def option_path(name: str) -> Path:
    """Where the option of this name is written: ./conf, which aptlab looks into by itself."""
    return Path("conf") / "rope" / f"{name}.yaml"
