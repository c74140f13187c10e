"""`eval=lengths`: loss at multiples of the trained context, on the same target tokens, and by position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from aptlab.errors import ConfigError
from aptlab.evals.base import Eval, EvalContext, Measurement, Row
from aptlab.evals.fitting import fit_windows
from aptlab.limits import PositiveInt, validate_limits
from aptlab.report.figure import draw_length_panel
from aptlab.report.style import COLOURS, FAINT, label_empty_panel, make_two_panels, save_figure, set_heading
from aptlab.report.table import format_length_table


@dataclass(frozen=True, kw_only=True)
class LengthLoss(Eval):
    """Loss at multiples of the trained context, on the same target tokens, and by position.

    multiples  of the trained context; one that text or positions are too short for is left out with a warning
    tokens     of validation text, the same ones at every length

    rows: `lengths` (multiple, length, loss in nats per token, ppl, bpb in bits per byte, tokens), one per multiple;
    `positions` (position, loss, tokens) of the longest windows, in buckets that grow like a logarithm.
    """

    name: ClassVar[str] = "lengths"
    multiples: Sequence[PositiveInt] = (1, 2, 4, 8)
    tokens: PositiveInt = 65_536

    def __post_init__(self) -> None:
        validate_limits(self)
        if not self.multiples:
            raise ConfigError("multiples=[] measures nothing; choose lengths such as multiples=[1,2,4,8]")

    def check(self, context: EvalContext) -> None:
        """DataError when the text is too short for the smallest multiple."""
        self._fit(context)

    def measure(self, context: EvalContext) -> Measurement:
        """Every multiple on the same targets; see `scoring.lengths`."""
        from aptlab.evals.scoring.lengths import evaluate_windows

        windows, trained = self._fit(context), context.trained_context
        order = sorted(windows.multiples)
        with context.borrow_network() as net, context.open_progress(self.name, total=len(order)) as bar:
            found = evaluate_windows(
                net,
                windows,
                device=context.device,
                precision=context.precision,
                progress=lambda multiple: bar.update(order.index(multiple), f"{multiple}x"),
                prefix=context.tokenizer.prefix,
            )
        draw = partial(draw_length_figure, found.rows, found.positions, title=context.title, context=trained)
        return Measurement(
            rows={"lengths": found.rows, "positions": found.positions},
            tables=[format_length_table(found.rows, trained)],
            figures={"figure.png": draw},
            facts={"data": {"fingerprint": context.open_data().fingerprint, **windows.meta}},
        )

    def _fit(self, context: EvalContext) -> Any:
        return fit_windows(
            context.open_data(),
            context=context.trained_context,
            multiples=self.multiples,
            tokens=self.tokens,
            longest=context.net.max_positions,
        )


def draw_length_figure(
    lengths: Sequence[Row], positions: Sequence[Row], path: Path, *, title: str, context: int
) -> Path:
    """Loss by position left, perplexity by length right; raises AptlabError if the file cannot be written."""
    figure, left, right = make_two_panels(title)
    draw_position_panel(left, positions, context)
    draw_length_panel(right, lengths, context)
    return save_figure(figure, path)


def draw_position_panel(axes: Any, positions: Sequence[Row], context: int) -> None:
    """Mean loss of the tokens at each position of the longest windows; a line marks the trained context."""
    set_heading(axes, "loss by position (nats per token)")
    rows = [row for row in positions if row["loss"] == row["loss"]]
    if not rows:
        label_empty_panel(axes, "no position was measured")
        return
    x, y = [row["position"] for row in rows], [row["loss"] for row in rows]
    axes.axvline(context, color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
    axes.plot(x, y, color=COLOURS[0], marker="o", markersize=4, linewidth=1.5)
    axes.set_xscale("log", base=2)
    ticks = [2**power for power in range(0, max(x).bit_length(), 2)]
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.set_ylim(0, max(y) * 1.1)
    axes.set_xlabel("tokens of context before the prediction")
    axes.text(context, 0.94, "  trained length", transform=axes.get_xaxis_transform(), color=FAINT, fontsize=8)
