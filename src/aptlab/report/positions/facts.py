"""The table under the figures: what one should know of each rule at a glance."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from aptlab.nn.rope import Rope
from aptlab.report.positions.board import tokens
from aptlab.report.positions.extrapolation import FARTHEST, reach
from aptlab.report.positions.memory import size_text, table_bytes
from aptlab.report.positions.turning import Setting, Turning
from aptlab.report.positions.wavelengths import critical_pair
from aptlab.report.table import render

HEAD = ["rule", "pairs", "longest wave", "critical pair", "temperature", "seen up to", "relative", "tables"]
NOTES = (
    "longest wave: tokens of the slowest turn. critical pair: the first that made no whole turn in training.",
    "temperature: factor on logits at the target length. seen up to: the longest text in which every pair meets",
    "angles of training only. relative: logits depend on distances alone. tables: bytes of cos and sin, all layers.",
)


def facts(rules: Sequence[tuple[Rope, Sequence[Turning]]], setting: Setting) -> list[list[str]]:
    """One row per part of a rule; what belongs to the whole rule stands in its first row."""
    rows = []
    for rule, parts in rules:
        for turning in parts:
            first = turning.place == 0
            last = np.array([setting.length - 1])
            rows.append(
                [
                    turning.label,
                    str(len(turning.pairs)),
                    longest(turning, setting),
                    _or(critical_pair(turning, setting.original), "none"),
                    f"{turning.temperatures(last, setting.length)[0]:.4g}",
                    _reach(turning, setting),
                    ("yes" if rule.relative else "no") if first else "",
                    size_text(table_bytes(parts)) if first else "",
                ]
            )
    return rows


def longest(turning: Turning, setting: Setting) -> str:
    """Tokens of the slowest turn among pairs that turn, and how many do not."""
    theta = turning.frequencies(setting.length).min(0)
    still = int((theta == 0).sum())
    wave = tokens(2 * math.pi / theta[theta > 0].min())
    return f"{wave} ({still} still)" if still else wave


def text(rows: Sequence[Sequence[str]], setting: Setting, *, terminal: bool | None = None) -> str:
    """The table and what its columns mean."""
    title = f"trained {setting.original:,}, target {setting.length:,} tokens, head of {setting.head_dim} dims"
    return "\n".join([render(HEAD, rows, title=title, terminal=terminal), "", *NOTES])


def _reach(turning: Turning, setting: Setting) -> str:
    found = reach(turning, setting.original)
    return f"> {tokens(setting.original * FARTHEST)}" if found is None else f"{found:,}"


def _or(value: int | None, word: str) -> str:
    return word if value is None else str(value)
