"""Tables, statistics and figures from the numbers of finished runs. No torch."""

from aptlab.report.comparison import Comparison, compare
from aptlab.report.figure import run_figure
from aptlab.report.table import length_table

__all__ = ["Comparison", "compare", "length_table", "run_figure"]
