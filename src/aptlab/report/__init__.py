"""Tables, statistics and figures from the numbers of finished runs. No torch."""

from aptlab.report.comparison import Comparison, compare_runs
from aptlab.report.figure import draw_run_figure
from aptlab.report.table import format_length_table

__all__ = ["Comparison", "compare_runs", "draw_run_figure", "format_length_table"]
