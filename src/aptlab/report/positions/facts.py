"""The table under the figures: what one should know of each rule at a glance."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from aptlab.nn.positions.rope import Rope
from aptlab.report.positions.board import format_tokens
from aptlab.report.positions.extrapolation import FARTHEST, find_seen_length
from aptlab.report.positions.memory import count_table_bytes, format_bytes
from aptlab.report.positions.rotary_parts import AnalysisSettings, RotaryPart
from aptlab.report.positions.wavelengths import find_critical_pair
from aptlab.report.table import render_table

HEAD = ["rule", "pairs", "longest wave", "critical pair", "temperature", "seen up to", "relative", "tables"]
NOTES = (
    "longest wave: tokens of the slowest rotation. critical pair: the first that made no whole rotation in training.",
    "temperature: factor on logits at the target length. seen up to: the longest text in which every pair meets",
    "angles of training only. relative: logits depend on distances alone. tables: bytes of cos and sin, all layers.",
)


def summarize_rules(rules: Sequence[tuple[Rope, Sequence[RotaryPart]]], setting: AnalysisSettings) -> list[list[str]]:
    """One row per part of a rule; what belongs to the whole rule stands in its first row."""
    rows = []
    for rule, parts in rules:
        for part in parts:
            first = part.place == 0
            last = np.array([setting.length - 1])
            rows.append(
                [
                    part.label,
                    str(len(part.pairs)),
                    describe_longest_wave(part, setting),
                    _or(find_critical_pair(part, setting.original), "none"),
                    f"{part.temperatures(last, setting.length)[0]:.4g}",
                    _reach(part, setting),
                    ("yes" if rule.relative else "no") if first else "",
                    format_bytes(count_table_bytes(parts)) if first else "",
                ]
            )
    return rows


def describe_longest_wave(part: RotaryPart, setting: AnalysisSettings) -> str:
    """Tokens of the slowest rotation among pairs that rotate, and how many do not."""
    theta = part.frequencies(setting.length).min(0)
    still = int((theta == 0).sum())
    wave = format_tokens(2 * math.pi / theta[theta > 0].min())
    return f"{wave} ({still} still)" if still else wave


def format_facts(rows: Sequence[Sequence[str]], setting: AnalysisSettings, *, terminal: bool | None = None) -> str:
    """The table and what its columns mean."""
    title = f"trained {setting.original:,}, target {setting.length:,} tokens, head of {setting.head_dim} dims"
    return "\n".join([render_table(HEAD, rows, title=title, terminal=terminal), "", *NOTES])


def _reach(part: RotaryPart, setting: AnalysisSettings) -> str:
    found = find_seen_length(part, setting.original)
    return f"> {format_tokens(setting.original * FARTHEST)}" if found is None else f"{found:,}"


def _or(value: int | None, word: str) -> str:
    return word if value is None else str(value)
