"""`aptlab plot`: figures and numbers of position rules, without a model.

aptlab plot rope=standard,yarn,ntk                      curves of several rules in each figure
aptlab plot rope=yarn rope.factor=4,8,16                one rule with several values
aptlab plot rope=standard,yarn what=decay,extrapolation original=4096 length=32768
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from aptlab.config.root_keys import DIALS, find_root_key_problem
from aptlab.config.sweeps import expand_grid, split_arguments
from aptlab.errors import ConfigError, suggest_option
from aptlab.nn.positions.rope import Rope
from aptlab.report.positions.curve_rules import (
    build_curve_rule,
    choose_target_length,
    compose_curves,
    drop_unsupported_values,
    label_curves,
)

NAMES = ("wavelengths", "similarity", "extrapolation", "decay", "bases", "precision", "memory")
RAW = ("what", "base", "out")  # lists that are no sweep, and a path that may hold any character
MOST = 8  # rules that colours tell apart


@dataclass(frozen=True, kw_only=True)
class PlotRequest:
    """A checked request. chosen  whether the analyses were named; notes  lines on what was left out, and why."""

    rules: tuple[tuple[str, Rope], ...]
    what: tuple[str, ...]
    chosen: bool
    base: tuple[float, ...]
    head_dim: int
    heads: int
    original: int
    length: int
    seed: int
    out: str | None
    notes: tuple[str, ...] = ()


def run(args: list[str]) -> int:
    """Check the request, then measure, draw, write and print; torch is loaded for what=precision alone."""
    request = read_plot_request(args)
    from aptlab.report.positions import AnalysisSettings
    from aptlab.report.positions.draw import RuleAnalyses, make_plot_folder

    settings = AnalysisSettings(
        length=request.length,
        original=request.original,
        head_dim=request.head_dim,
        heads=request.heads,
        bases=request.base,
        seed=request.seed,
    )
    analyses = RuleAnalyses(request.rules, settings)
    print(analyses.format_facts(), flush=True)
    for line in analyses.list_warnings():
        print(f"warning: {line}")
    for note in request.notes:
        print(f"note: {note}")
    folder = make_plot_folder(request.out)
    for name in request.what:
        try:
            written = analyses.draw(name, folder)
        except ConfigError as error:
            if request.chosen:
                raise
            print(f"left out: {error}")
        else:
            print(f"written {' '.join(map(str, written))}", flush=True)
    return 0


def read_plot_request(args: Sequence[str]) -> PlotRequest:
    """The request of a command line, checked without torch and numpy; ConfigError lists every problem."""
    raw, rest = split_raw_values(args)
    mine, shared = split_arguments(rest, ("rope",))
    jobs, notes = drop_unsupported_values(expand_grid(mine))
    if several := [job for job in ([] if len(expand_grid(shared)) == 1 else shared) if len(expand_grid([job])) > 1]:
        raise ConfigError(f"{several[0]}: a figure has one value of it; only rope and rope.… take several")
    if len(jobs) > MOST:
        raise ConfigError(f"{len(jobs)} curves; a figure shows {MOST} at most, so ask for fewer values")
    configs = compose_curves(jobs, shared)
    values = configs[0].resolved()
    problems = [f"{key}: {p}" for key in DIALS["plot"] if (p := find_root_key_problem("plot", key, values[key]))]
    if problems:
        raise ConfigError("\n".join(problems))
    rules = tuple(zip(label_curves(jobs), map(build_curve_rule, configs), strict=True))
    what = parse_analyses(raw.get("what", values["what"]))
    sizes = {key: values[key] for key in ("original", "head_dim")}
    return PlotRequest(
        rules=rules,
        what=what or NAMES,
        chosen=bool(what),
        base=parse_bases(raw.get("base", values["base"])),
        length=choose_target_length(**sizes, length=values["length"], rules=[rule for _, rule in rules]),
        out=raw.get("out", values["out"]) or None,
        notes=tuple(notes),
        **sizes,
        **{key: values[key] for key in ("heads", "seed")},
    )


def split_raw_values(args: Iterable[str]) -> tuple[dict[str, str | None], list[str]]:
    """Keys that are read as they are typed, and all other arguments."""
    pairs = [(arg, *arg.partition("=")) for arg in args]
    raw = {key: None if value == "null" else value for _, key, sign, value in pairs if sign and key in RAW}
    return raw, [arg for arg, key, sign, _ in pairs if not sign or key not in RAW]


def parse_analyses(value: Any) -> tuple[str, ...]:
    """Names from `all`, `a,b`, `[a,b]` or a list; nothing means all."""
    words = split_words(value)
    unknown = [word for word in words if word not in (*NAMES, "all")]
    if unknown:
        raise ConfigError("\n".join(f"what={word}: no such analysis{suggest_option(word, NAMES)}" for word in unknown))
    return () if "all" in words else tuple(name for name in NAMES if name in words)


def parse_bases(value: Any) -> tuple[float, ...]:
    """Rising bases from `1e3,1e4` or a list; each must be larger than 1."""
    try:
        found = sorted({float(word) for word in split_words(value)})
    except ValueError:
        raise ConfigError(f"base={value}: expects numbers, as in base=1e4,5e5") from None
    if not found or not all(1 < base < 1e30 for base in found):
        raise ConfigError(f"base={value}: bases are numbers larger than 1, as in base=1e4,5e5")
    if len(found) > MOST:
        raise ConfigError(f"base: {len(found)} bases; a figure shows {MOST} at most")
    return tuple(found)


def split_words(value: Any) -> list[str]:
    """The words of a list, or of a text with commas and perhaps brackets and quotes."""
    text = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value or "")
    return [word.strip().strip("'\"") for word in text.strip("[] ").split(",") if word.strip()]
