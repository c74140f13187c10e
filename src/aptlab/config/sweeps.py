"""Overrides with several values, read with Hydra's grammar: the jobs of a grid, the space of a search."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any

from aptlab.config.escaped import escape_text
from aptlab.config.shortcuts import expand_shortcuts
from aptlab.errors import ConfigError

FORMS = "write key=a,b  key=range(1,4)  key=glob(*)  key=choice(a,b)"
SEARCH_FORMS = f"{FORMS}  key=interval(0,1)  key='tag(log, interval(1e-4,1e-2))'  key='int(interval(1,8))'"


@dataclass(frozen=True)
class ChoiceAxis:
    """One of several values, each as the text behind `key=`, quoted so that it is read back exactly."""

    key: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class IntervalAxis:
    """A number between `low` and `high` (both included); whole if `integer`, uniform in its logarithm if `log`."""

    key: str
    low: float
    high: float
    log: bool = False
    integer: bool = False


def expand_grid(overrides: Sequence[str]) -> list[list[str]]:
    """All combinations of the values given, the last key turning fastest; one list of overrides per job.

    A later override of the same key replaces an earlier one. Raises ConfigError naming each override that is wrong.

    >>> expand(["a=1,2", "b='x,y'"])
    [['a=1', "b='x,y'"], ['a=2', "b='x,y'"]]
    """
    axes: dict[str, list[str]] = {}
    for key, axis in _read(overrides):
        if isinstance(axis, IntervalAxis):
            raise ConfigError(f"{key}: an interval has no list of values; add sweep=optuna, or {FORMS}")
        axes.pop(key, None)
        axes[key] = [axis] if isinstance(axis, str) else [f"{key}={value}" for value in axis.values]
    return [list(job) for job in itertools.product(*axes.values())]


def read_sweep_axes(overrides: Sequence[str]) -> tuple[list[str], list[ChoiceAxis | IntervalAxis]]:
    """The fixed overrides, and what a search may vary. Raises ConfigError naming each override that is wrong."""
    axes = dict(_read(overrides))
    fixed = [axis for axis in axes.values() if isinstance(axis, str)]
    return fixed, [axis for axis in axes.values() if not isinstance(axis, str)]


def split_arguments(args: Iterable[str], prefixes: Sequence[str]) -> tuple[list[str], list[str]]:
    """Arguments whose key is one of the prefixes or lies under it, and all others."""
    mine: list[str] = []
    rest: list[str] = []
    for arg in args:
        root = arg.lstrip("+~").partition("=")[0].partition(".")[0].partition("@")[0]
        (mine if root in prefixes else rest).append(arg)
    return mine, rest


def format_override(key: str, text: str) -> str:
    """The override that gives a string to a key, quoted, whatever is in it.

    >>> assign("run_dir", "a b,c")
    "run_dir='a b,c'"
    """
    from hydra.core.override_parser.types import Quote, QuotedString

    return f"{key}={QuotedString(text, Quote.single).with_quotes()}"


def format_text(key: str, text: str) -> str:
    """The override that gives a text out of a file to a key: nothing in it is resolved.

    >>> format_text("tokenizer.eos", "${x}")
    "tokenizer.eos='\\\\${x}'"
    """
    return format_override(key, escape_text(text))


def _read(overrides: Sequence[str]) -> list[tuple[str, Any]]:
    """(key, axis) of every override: an override without several values stays the text it was."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser, found, problems = OverridesParser.create(), [], []
    for text in expand_shortcuts(overrides):
        try:
            parsed = parser.parse_override(_simple(text))
            key = parsed.get_key_element()
            found.append((key, _axis(key, parsed) if parsed.is_sweep_override() else _simple(text)))
        except HydraException:
            problems.append(f"{text}: this is no override; {SEARCH_FORMS}")
        except ConfigError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError("\n".join(problems))
    return found


def _simple(text: str) -> str:
    """`key=choice(a,b)` as `key=a,b`, which keeps quotes and takes null (findings/hydra_choice_quotes.sh)."""
    key, sign, value = text.partition("=")
    value = value.strip()
    plain = value.startswith("choice(") and value.endswith(")") and "list=" not in value
    return f"{key}{sign}{value[len('choice(') : -1]}" if plain else text


def _axis(key: str, parsed: Any) -> ChoiceAxis | IntervalAxis:
    value = parsed.value()
    if parsed.is_interval_sweep():
        return _interval(key, value)
    if getattr(value, "shuffle", False):
        raise ConfigError(f"{key}: shuffle() would give other jobs each time, and no sweep could be continued")
    if hasattr(value, "include"):
        values = _options(key, parsed.key_or_group, value)
    else:
        values = list(parsed.sweep_string_iterator())
    if not values:
        raise ConfigError(f"{parsed.input_line}: no value at all; {FORMS}")
    return ChoiceAxis(key, tuple(dict.fromkeys(values)))


def _interval(key: str, value: Any) -> IntervalAxis:
    low, high, tags = value.start, value.end, set(value.tags)
    whole = isinstance(low, int) and isinstance(high, int)
    unknown = tags - {"log"}
    if unknown:
        raise ConfigError(f"{key}: unknown tag {sorted(unknown)[0]}; the only tag is log")
    if not all(map(math.isfinite, (low, high))) or low > high:
        raise ConfigError(f"{key}: interval({low},{high}) goes from the smaller number to the larger one")
    if "log" in tags and low <= 0:
        raise ConfigError(f"{key}: a logarithmic interval begins above 0, not at {low}")
    return IntervalAxis(key, low, high, log="log" in tags, integer=whole)


def _options(key: str, group: str, glob: Any) -> list[str]:
    """Names of a group's options that the patterns of glob() take."""
    from aptlab.config.search_path import read_option_index

    groups = read_option_index().groups
    if group not in groups:
        raise ConfigError(f"{key}: glob() names the options of a group, and {group} is none")
    names = [name for name in sorted(groups[group]) if any(fnmatch(name, pattern) for pattern in glob.include)]
    return [name for name in names if not any(fnmatch(name, pattern) for pattern in glob.exclude)]
