"""`aptlab plot`: figures and numbers of position rules, without a model.

aptlab plot rope=standard,yarn,ntk                      curves of several rules in each figure
aptlab plot rope=yarn rope.factor=4,8,16                one rule with several values
aptlab plot rope=standard,yarn what=decay,extrapolation original=4096 length=32768
"""

from __future__ import annotations

from aptlab.report.positions.request import read_plot_request


def run(args: list[str]) -> int:
    """Check the request, then measure, draw, write and print; torch is loaded for what=precision alone."""
    request = read_plot_request(args)
    from aptlab.report.positions.draw import plot_analyses

    plot_analyses(request)
    return 0
