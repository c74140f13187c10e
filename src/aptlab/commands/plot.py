"""`aptlab plot`: figures and numbers of position rules, without a model.

aptlab plot rope=standard,yarn,ntk                      curves of several rules in each figure
aptlab plot rope=yarn rope.factor=4,8,16                one rule with several values
aptlab plot rope=standard,yarn what=decay,extrapolation original=4096 length=32768
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from aptlab.config import fill_request
from aptlab.config.overrides import split_raw_values
from aptlab.config.sweeps import expand_grid, split_arguments
from aptlab.errors import ConfigError, suggest_option
from aptlab.limits import NonNegativeInt, Positive, PositiveInt
from aptlab.nn.positions.rope import Rope
from aptlab.report.positions.curve_rules import (
    MOST,
    build_curve_rule,
    choose_target_length,
    compose_curves,
    drop_unsupported_values,
    label_curves,
    parse_bases,
    split_words,
)
from aptlab.shown import print_drawn, print_shown

Analysis = Literal["all", "wavelengths", "similarity", "extrapolation", "decay", "bases", "precision", "memory"]
NAMES = ("wavelengths", "similarity", "extrapolation", "decay", "bases", "precision", "memory")
RAW = ("what", "base", "out")  # lists that are no sweep, and a path that may hold any character


@dataclass(frozen=True, kw_only=True)
class PlotRequest:
    """What `aptlab plot` is asked for, beside its rules.

    what      analyses: a list, or all
    head_dim  dims of a head
    heads     key heads, for rules that differ from head to head
    original  trained context, in tokens
    length    target context; None: `original` times the largest factor, at least 4 times
    base      bases that the analysis `bases` compares
    seed      of random queries and keys
    out       folder for figures and CSV; None: outputs/plot/<time>
    context   what ${context} means in options of rope
    """

    what: Analysis | list[Analysis]
    head_dim: PositiveInt
    heads: PositiveInt
    original: PositiveInt
    length: PositiveInt | None
    base: Positive | list[Positive]
    seed: NonNegativeInt
    out: str | None
    context: PositiveInt


@dataclass(frozen=True, kw_only=True)
class PlotPlan:
    """What is drawn. chosen  whether the analyses were named; notes  lines on what was left out, and why."""

    request: PlotRequest
    rules: tuple[tuple[str, Rope], ...]
    what: tuple[str, ...]
    chosen: bool
    base: tuple[float, ...]
    length: int
    notes: tuple[str, ...] = ()


def run(args: list[str]) -> int:
    """Check the request, then measure, draw, write and print; torch is loaded for what=precision alone."""
    plan = plan_plot(args)
    from aptlab.report.positions import AnalysisSettings
    from aptlab.report.positions.draw import RuleAnalyses, make_plot_folder

    settings = AnalysisSettings(
        length=plan.length,
        original=plan.request.original,
        head_dim=plan.request.head_dim,
        heads=plan.request.heads,
        bases=plan.base,
        seed=plan.request.seed,
    )
    analyses = RuleAnalyses(plan.rules, settings)
    print_drawn(analyses.format_facts(), flush=True)
    for line in analyses.list_warnings():
        print_shown(f"warning: {line}")
    for note in plan.notes:
        print_shown(f"note: {note}")
    folder = make_plot_folder(plan.request.out)
    for name in plan.what:
        try:
            written = analyses.draw(name, folder)
        except ConfigError as error:
            if plan.chosen:
                raise
            print_shown(f"left out: {error}")
        else:
            print_shown(f"written {' '.join(map(str, written))}", flush=True)
    return 0


def plan_plot(args: Sequence[str]) -> PlotPlan:
    """What a command line asks for, checked without torch and numpy; ConfigError lists every problem."""
    raw, rest = split_raw_values(args, RAW)
    mine, shared = split_arguments(rest, ("rope",))
    jobs, notes = drop_unsupported_values(expand_grid(mine))
    if several := [job for job in ([] if len(expand_grid(shared)) == 1 else shared) if len(expand_grid([job])) > 1]:
        raise ConfigError(f"{several[0]}: a figure has one value of it; only rope and rope.… take several")
    if len(jobs) > MOST:
        raise ConfigError(f"{len(jobs)} curves; a figure shows {MOST} at most, so ask for fewer values")
    configs = compose_curves(jobs, shared)
    request = fill_request(PlotRequest, configs[0], **raw)
    rules = tuple(zip(label_curves(jobs), map(build_curve_rule, configs), strict=True))
    what = parse_analyses(request.what)
    length = choose_target_length(
        original=request.original, head_dim=request.head_dim, length=request.length, rules=[rule for _, rule in rules]
    )
    return PlotPlan(
        request=request,
        rules=rules,
        what=what or NAMES,
        chosen=bool(what),
        base=parse_bases(request.base),
        length=length,
        notes=tuple(notes),
    )


def parse_analyses(value: Any) -> tuple[str, ...]:
    """Names from `all`, `a,b`, `[a,b]` or a list; nothing means all."""
    words = split_words(value)
    unknown = [word for word in words if word not in (*NAMES, "all")]
    if unknown:
        raise ConfigError("\n".join(f"what={word}: no such analysis{suggest_option(word, NAMES)}" for word in unknown))
    return () if "all" in words else tuple(name for name in NAMES if name in words)
