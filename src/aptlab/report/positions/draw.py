"""Measure, draw and write the analyses of a few rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path

from aptlab.nn.positions.rope import Rope
from aptlab.report.positions import ANALYSES, AnalysisSettings, RotaryPart, split_rotary_parts
from aptlab.report.positions.facts import format_facts, summarize_rules
from aptlab.report.positions.lines import format_curves_csv, join_names
from aptlab.restore.rope import warn_of_rope
from aptlab.runs.atomic import write_text
from aptlab.runs.folder import make_folder


@dataclass(frozen=True)
class RuleAnalyses:
    """Position rules with their names, ready to be measured; all methods raise ConfigError for one without rotation.

    rules     (name, rule) of every curve
    settings  the lengths, sizes and bases that all analyses share
    """

    rules: Sequence[tuple[str, Rope]]
    settings: AnalysisSettings

    @cached_property
    def parts(self) -> list[tuple[Rope, tuple[RotaryPart, ...]]]:
        """Every rule with its parts: one per different layer, head and section."""
        return [
            (rule, split_rotary_parts(name, rule, self.settings, number=number))
            for number, (name, rule) in enumerate(self.rules)
        ]

    def format_facts(self) -> str:
        """The table of what one should know of each rule at a glance."""
        return format_facts(summarize_rules(self.parts, self.settings), self.settings)

    def list_warnings(self) -> list[str]:
        """What the rules themselves warn of at these lengths; with the curve's name where it is not the option's."""
        settings = self.settings
        return [
            f"{notice} [{name}]" if " " in name else notice
            for name, rule in self.rules
            for notice in warn_of_rope(rule, head_dim=settings.head_dim, length=settings.length)
        ]

    def draw(self, analysis: str, folder: Path) -> list[Path]:
        """Write one PNG and the CSV files of its numbers; ConfigError for a rule that the analysis cannot measure."""
        module = ANALYSES[analysis]
        parts = [part for _, found in self.parts for part in found]
        tables = module.compute_tables(parts, self.settings)
        title = module.TITLE.format(join_names((name for name, _ in self.rules), most=6))
        written = [module.draw_figure(tables, parts, self.settings, title=title, path=folder / f"{analysis}.png")]
        for table, lines in tables.items():
            path = folder / (f"{analysis}_{table}.csv" if table else f"{analysis}.csv")
            write_text(path, format_curves_csv(lines))
            written.append(path)
        return written


def make_plot_folder(out: str | None) -> Path:
    """The folder to write into, made where it is missing; outputs/plot/<time> for None."""
    return make_folder(out or Path("outputs") / "plot" / f"{datetime.now():%Y-%m-%d-%H%M%S}")
