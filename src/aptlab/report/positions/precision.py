"""What arithmetic does to logits far out: angles in float32, cosines or positions in bfloat16, and two-level tables.

Legend: N pairs of tokens, P pairs of dims. The only analysis that loads torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aptlab.errors import ConfigError
from aptlab.report.positions.board import (
    HEIGHT,
    compute_extra_width,
    draw_length_marks,
    format_token_axis,
    get_curve_style,
    list_length_marks,
    make_panel_figure,
    set_panel_titles,
)
from aptlab.report.positions.lines import Curve, Tables, make_curve
from aptlab.report.positions.rotary_parts import AnalysisSettings, Array, RotaryPart, select_all_pairs
from aptlab.report.style import COLOURS

TITLE = "Precision far out: {}"
LONGEST = 2**24  # positions that the two levels cover, and that float32 tells apart
SAMPLES = 512
FARTHEST = 4096  # largest distance between query and key
VARIANTS = ("float32 angle", "bfloat16 cos, sin", "bfloat16 position", "two levels")


def compute_tables(parts: Sequence[RotaryPart], setting: AnalysisSettings) -> Tables:
    """Mean and largest error of a logit by position and way of computing, against float64.

    q and k have unit variance, logits are divided by sqrt(D). The query stands in the last quarter before the
    position, the key up to 4096 tokens before it. Only cosines and sines carry an error, products are float64.
    Rules whose positions are coordinates are left out: coordinates stay small.
    """
    found = []
    for part in [select_all_pairs((first,)) for first in parts if first.place == 0]:
        if part.rule.streams > 1:
            continue
        found += _of_rule(part, setting)
    if not found:
        raise ConfigError(
            "what=precision: positions of these rules are coordinates; choose a rope for text, or other analyses"
        )
    return {"": found}


def _of_rule(part: RotaryPart, setting: AnalysisSettings) -> list[Curve]:
    from aptlab.nn.positions.rotary import build_rotary

    module = build_rotary(part.rule, head_dim=setting.head_dim, heads=1, kv_heads=1)
    positions = np.append(2 ** np.arange(1, 24), LONGEST - 1)
    random = np.random.default_rng(setting.seed)
    errors: dict[str, list[Array]] = {name: [] for name in VARIANTS}
    for position in positions:
        m = random.integers(max(1, 3 * position // 4), position + 1, SAMPLES)
        n = m - random.integers(0, np.minimum(m, FARTHEST) + 1)
        shape = (SAMPLES, len(part.pairs), 2)
        q, k = (random.standard_normal(shape) @ np.array([1, 1j]) for _ in range(2))
        rotated = [compute_variants(part, module, places) for places in (m, n)]
        exact = _logit(q, k, rotated[0]["float64"], rotated[1]["float64"], setting.head_dim)
        for name in VARIANTS:
            errors[name].append(np.abs(_logit(q, k, rotated[0][name], rotated[1][name], setting.head_dim) - exact))
    return [
        make_curve(
            part,
            {
                "position": positions,
                "mean": np.array([e.mean() for e in values]),
                "max": np.array([e.max() for e in values]),
            },
            part=name,
            place=place,
        )
        for place, (name, values) in enumerate(errors.items())
    ]


def compute_variants(part: RotaryPart, module: Any, places_N: Array) -> dict[str, Array]:
    """cos + 1j sin [N, P] of every way of computing; sizes that a rule gives tokens are exact but in the last."""
    import torch

    theta_NP = torch.from_numpy(part.sets(LONGEST)[part.choices(places_N, LONGEST)])
    place_N1 = torch.from_numpy(places_N).unsqueeze(1)
    angle = place_N1.float() * theta_NP.float()
    coarse = place_N1.bfloat16().float() * theta_NP.float()
    exact, size = part.angles(places_N, LONGEST)
    lengths = torch.full_like(place_N1.T, LONGEST)
    tables = module.angles(place_N1.T, lengths)
    root = math.sqrt(part.rule.temperature) if part.rule.temperature_on == "cos_sin" else 1.0
    return {
        "float64": size * np.exp(1j * exact),
        "float32 angle": size * _complex(angle.cos(), angle.sin()),
        "bfloat16 cos, sin": size * _complex(angle.cos().bfloat16(), angle.sin().bfloat16()),
        "bfloat16 position": size * _complex(coarse.cos(), coarse.sin()),
        "two levels": _complex(tables.cos[0, 0], tables.sin[0, 0]) / root,
    }


def _complex(cos: Any, sin: Any) -> Array:
    return cos.detach().double().numpy() + 1j * sin.detach().double().numpy()


def _logit(q_NP: Array, k_NP: Array, rotation_m: Array, rotation_n: Array, head_dim: int) -> Array:
    return np.real(q_NP * rotation_m * np.conj(k_NP * rotation_n)).sum(1) / math.sqrt(head_dim)


def draw_figure(
    tables: Tables, parts: Sequence[RotaryPart], setting: AnalysisSettings, *, title: str, path: Path
) -> Path:
    """All ways for the first rule left; float32 angles and two levels of every rule right."""
    del parts
    lines = tables[""]
    first = [line for line in lines if line.name == lines[0].name]
    extremes = [line for line in lines if line.part in (VARIANTS[0], VARIANTS[-1])]
    names = list(dict.fromkeys(line.name for line in lines))
    figure = make_panel_figure(title, [(2, HEIGHT)], labels=[*names, *list_length_marks(setting)])
    left, right = figure.panels[0]
    for line, colour in zip(first, (COLOURS[1], COLOURS[5], COLOURS[3], COLOURS[0])):
        left.plot(line["position"], line["mean"], color=colour, linewidth=1.7)
        left.plot(line["position"], line["max"], color=colour, linewidth=0.9, linestyle=":")
        _name(left, line, colour)
    for line in extremes:
        solid = line.part == VARIANTS[-1]
        wide = compute_extra_width(line, extremes[-1].number)
        style = {**get_curve_style(line), "linestyle": "-" if solid else "--", "linewidth": 1.5 + wide * solid}
        (drawn,) = right.plot(line["position"], line["mean"], **style)
        if solid:
            figure.key(line.name, drawn)
    for axes in (left, right):
        _axes(axes, lines)
        draw_length_marks(figure, axes, setting)
    set_panel_titles(
        left, f"{first[0].name}: mean error of a logit (dotted: largest of {SAMPLES})", "position (tokens)"
    )
    set_panel_titles(right, "all rules: two levels (solid) and float32 angles (dashed)", "position (tokens)")
    return figure.finish(path)


def _name(axes: Any, curve: Curve, colour: str) -> None:
    """The way's name below its curve, where curves are apart."""
    place = (16, 1, 13, 6)[curve.place]
    axes.annotate(
        curve.part,
        (curve["position"][place], curve["mean"][place]),
        xytext=(8, -7),
        textcoords="offset points",
        color=colour,
        fontsize=8,
        va="top",
        bbox={"facecolor": "white", "linewidth": 0, "pad": 0.8},
    )


def _axes(axes: Any, lines: Sequence[Curve]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    format_token_axis(axes.xaxis, 2, LONGEST * 1.3)
    low = min(line["mean"][line["mean"] > 0].min(initial=1e-8) for line in lines)
    axes.set_yscale("log")
    axes.set_ylim(max(low / 3, 2e-9), 20)
    axes.yaxis.set_major_locator(LogLocator(base=10, numticks=14))
    axes.yaxis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{value:g}" if value > 5e-4 else f"1e{round(math.log10(value))}")
    )
    axes.yaxis.set_minor_formatter(NullFormatter())
