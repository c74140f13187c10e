"""What a `plot` request asks for, checked without torch and without numpy."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from aptlab.config import Config, build, check, compose
from aptlab.config.files import read_config_file
from aptlab.config.root_keys import DIALS, find_root_key_problem
from aptlab.config.search_path import read_option_index
from aptlab.config.static.signatures import read_signature
from aptlab.config.sweeps import expand_grid, split_arguments
from aptlab.errors import AptlabError, ConfigError, suggest_option
from aptlab.nn.positions.rope import Rope, ScaledRotation

NAMES = ("wavelengths", "similarity", "extrapolation", "decay", "bases", "precision", "memory")
RAW = ("what", "base", "out")  # lists that are no sweep, and a path that may hold any character
MOST = 8  # rules that colours tell apart
SHORTEST = 16  # tokens below which there is nothing to see
LABEL = 48  # characters of a curve's name
LAYERS = 24  # layers that are asked for their rule


@dataclass(frozen=True, kw_only=True)
class PlotRequest:
    """A checked request. chosen  whether the analyses were named; notes  lines on what was left out, and why."""

    rules: tuple[tuple[str, Rope], ...]
    what: tuple[str, ...]
    chosen: bool
    bases: tuple[float, ...]
    head_dim: int
    heads: int
    original: int
    length: int
    seed: int
    out: str | None
    notes: tuple[str, ...] = ()


def read_plot_request(args: Sequence[str]) -> PlotRequest:
    """The request of a command line; ConfigError lists every problem."""
    raw, rest = _raw(args)
    mine, shared = split_arguments(rest, ("rope",))
    jobs, notes = drop_unsupported_values(expand_grid(mine))
    if several := [job for job in ([] if len(expand_grid(shared)) == 1 else shared) if len(expand_grid([job])) > 1]:
        raise ConfigError(f"{several[0]}: a figure has one value of it; only rope and rope.… take several")
    if len(jobs) > MOST:
        raise ConfigError(f"{len(jobs)} curves; a figure shows {MOST} at most, so ask for fewer values")
    configs = _composed(jobs, shared)
    values = configs[0].resolved()
    problems = [f"{key}: {p}" for key in DIALS["plot"] if (p := find_root_key_problem("plot", key, values[key]))]
    if problems:
        raise ConfigError("\n".join(problems))
    rules = tuple(zip(label_curves(jobs), (_rule(config) for config in configs), strict=True))
    what = parse_analyses(raw.get("what", values["what"]))
    return PlotRequest(
        rules=rules,
        what=what or NAMES,
        chosen=bool(what),
        bases=parse_bases(raw.get("base", values["base"])),
        length=_lengths(values, [rule for _, rule in rules]),
        out=raw.get("out", values["out"]) or None,
        notes=tuple(notes),
        **{key: values[key] for key in ("head_dim", "heads", "original", "seed")},
    )


def parse_analyses(given: Any) -> tuple[str, ...]:
    """Names from `all`, `a,b`, `[a,b]` or a list; nothing means all."""
    words = _words(given)
    unknown = [word for word in words if word not in (*NAMES, "all")]
    if unknown:
        raise ConfigError("\n".join(f"what={word}: no such analysis{suggest_option(word, NAMES)}" for word in unknown))
    return () if "all" in words else tuple(name for name in NAMES if name in words)


def parse_bases(given: Any) -> tuple[float, ...]:
    """Rising bases from `1e3,1e4` or a list; each must be larger than 1."""
    words = _words(given)
    try:
        found = sorted({float(word) for word in words})
    except ValueError:
        raise ConfigError(f"base={given}: expects numbers, as in base=1e4,5e5") from None
    if not found or not all(1 < base < 1e30 for base in found):
        raise ConfigError(f"base={given}: bases are numbers larger than 1, as in base=1e4,5e5")
    if len(found) > MOST:
        raise ConfigError(f"base: {len(found)} bases; a figure shows {MOST} at most")
    return tuple(found)


def drop_unsupported_values(jobs: Sequence[Sequence[str]]) -> tuple[list[list[str]], list[str]]:
    """Jobs without the values that their option does not have, and a line on each; equal jobs count once.

    `rope=standard,yarn rope.factor=8` sets the factor of yarn. A value that no option takes stays, and is refused.
    """
    options = [_option(job) for job in jobs]
    takes = {option: _parameters(option) for option in dict.fromkeys(options)}
    found: list[list[str]] = []
    notes: list[str] = []
    for job, option in zip(jobs, options, strict=True):
        kept = []
        for item in job:
            key = item.partition("=")[0].lstrip("+~").partition(".")[2].partition(".")[0]
            if not key or key in takes[option] or not any(key in others for others in takes.values()):
                kept.append(item)
            else:
                notes.append(f"rope={option} has no {key}; it is drawn without")
        if kept not in found:
            found.append(kept)
    return found, list(dict.fromkeys(notes))


def label_curves(jobs: Sequence[Sequence[str]]) -> list[str]:
    """What to call each curve: its option, then the values that were given several times."""
    given: dict[str, set[str]] = {}
    for item in itertools.chain(*jobs):
        given.setdefault(item.partition("=")[0], set()).add(item)
    found = []
    for job in jobs:
        values = [item for item in job if len(given[item.partition("=")[0]]) > 1 and not item.startswith("rope=")]
        words = [_option(job), *(item.partition(".")[2].replace("'", "") for item in values)]
        text = " ".join(words)
        found.append(text if len(text) <= LABEL else text[: LABEL - 1] + "…")
    return found


def _raw(args: Iterable[str]) -> tuple[dict[str, str | None], list[str]]:
    """Keys that are read as they are typed, and all other arguments."""
    raw: dict[str, str | None] = {}
    rest = []
    for arg in args:
        key, sign, value = arg.partition("=")
        if sign and key in RAW:
            raw[key] = None if value == "null" else value
        else:
            rest.append(arg)
    return raw, rest


def _words(given: Any) -> list[str]:
    text = ",".join(map(str, given)) if isinstance(given, list | tuple) else str(given or "")
    return [word.strip().strip("'\"") for word in text.strip("[] ").split(",") if word.strip()]


def _option(job: Sequence[str]) -> str:
    """The rope that a job chooses."""
    chosen = [item.partition("=")[2] for item in job if item.partition("=")[0].lstrip("+") == "rope"]
    return chosen[-1].strip("'\"") if chosen else "standard"


def _parameters(option: str) -> set[str]:
    """Keys that an option takes; none for an option that does not exist, which composing will tell."""
    known = read_option_index().groups["rope"].get(option)
    target = read_config_file(known.path).get("_target_") if known else None
    found = read_signature(target) if isinstance(target, str) else None
    return set(found.parameters) if found else set()


def _composed(jobs: Sequence[Sequence[str]], shared: Sequence[str]) -> list[Config]:
    """The checked configuration of every job; one ConfigError with the problems of all."""
    configs, problems = [], []
    for job in jobs:
        try:
            config = compose("plot", [*job, *shared])
            check(config)
            configs.append(config)
        except AptlabError as error:
            problems += [text for text in str(error).splitlines() if text != "the config has problems:"]
    if problems:
        raise ConfigError("\n".join(dict.fromkeys(problems)))
    return configs


def _rule(config: Config) -> Rope:
    if config.resolved().get("rope") is None:
        raise ConfigError("rope=null: there is no rule to plot; choose one: aptlab ls rope")
    return build(config.cfg.rope)


def _lengths(values: dict[str, Any], rules: Sequence[Rope]) -> int:
    """The target length; ConfigError where lengths contradict each other or a head has no pairs."""
    original, length = values["original"], values["length"]
    scaled = [rule for whole in rules for rule in _scaled(whole)]
    if values["head_dim"] % 2:
        raise ConfigError(f"head_dim={values['head_dim']}: pairs need an even number of dims")
    if original < SHORTEST:
        raise ConfigError(f"original={original}: there is nothing to see below {SHORTEST} tokens")
    for rule in scaled:
        if rule.original_len != original:
            raise ConfigError(
                f"rope.original_len={rule.original_len} contradicts original={original}; give the trained context "
                f"once, as original={rule.original_len}"
            )
        if rule.target_len is not None and length is not None and rule.target_len > length:
            raise ConfigError(
                f"rope.target_len={rule.target_len} lies beyond length={length}; use length={rule.target_len} or more"
            )
    reach = [rule.target_len or round(rule.stretch * original) for rule in scaled]
    if length is None:
        return max(4 * original, *reach) if reach else 4 * original
    if length < original:
        raise ConfigError(
            f"length={length} is shorter than original={original}; the target context is the trained one or longer"
        )
    return length


def _scaled(rule: Rope) -> list[ScaledRotation]:
    """Rules of all layers that stretch a trained context."""
    layers = dict.fromkeys(rule.for_layer(layer).rule for layer in range(LAYERS))
    return [one for one in layers if isinstance(one, ScaledRotation)]
