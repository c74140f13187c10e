"""`eval=widths`: what each width of a nested network costs, and what it loses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from aptlab.errors import ConfigError
from aptlab.evals.base import Eval, EvalContext, Measurement, Row
from aptlab.limits import Fraction, PositiveInt, validate_limits
from aptlab.nn.width import Width, format_width
from aptlab.report.style import COLOURS, make_two_panels, save_figure, set_heading
from aptlab.report.table import format_number, render_table


@dataclass(frozen=True, kw_only=True)
class WidthLoss(Eval):
    """Cost, loss and agreement of the widths of a nested network, on the same validation text at the trained context.

    widths  numbers, or lists of one number for each block (Mix'n'Match); null = all that the network has
    tokens  of validation text, the same ones at every width

    rows: `widths` (width, parameters, forward_flops and ffn_flops per token by formula, loss in nats per token, ppl,
    bpb, agreement, tokens), one per width. Agreement is the share of targets at which the width's likeliest token is
    the whole network's: what greedy drafting keeps (Devvrit et al. 2023, arXiv:2310.07707, call it consistency).
    """

    name: ClassVar[str] = "widths"
    widths: Sequence[Fraction | Sequence[Fraction]] | None = None
    tokens: PositiveInt = 65_536

    def __post_init__(self) -> None:
        validate_limits(self)
        if self.widths is not None and not self.widths:
            raise ConfigError("widths=[] measures nothing; leave it out for all widths of the network")

    def check(self, context: EvalContext) -> None:
        """ConfigError for a network of one width, and for widths that it does not have; DataError for short text."""
        self._choose(context)
        self._open_windows(context)

    def measure(self, context: EvalContext) -> Measurement:
        """Every width on the same targets; see `scoring.widths`."""
        from aptlab.evals.scoring.widths import score_widths

        widths, windows = self._choose(context), self._open_windows(context)
        total = windows.meta["tokens"]
        with context.borrow_network() as net, context.open_progress(self.name, total=total) as bar:
            rows = score_widths(
                net,
                windows,
                widths,
                device=context.device,
                precision=context.precision,
                prefix=context.tokenizer.prefix,
                progress=lambda count: bar.advance(count, "tokens"),
            )
        return Measurement(
            rows={"widths": rows},
            tables=[format_width_table(rows)],
            figures={"figure.png": partial(draw_width_figure, rows, title=context.title)},
            facts={"data": {"fingerprint": context.open_data().fingerprint, **windows.meta}},
        )

    def _choose(self, context: EvalContext) -> list[Width]:
        have = context.net.widths
        if len(have) < 2:
            raise ConfigError(
                "eval=widths measures the widths of a nested network, and this one has a single width; train with "
                "ffn=matformer objective=elastic"
            )
        chosen: list[Width] = list(have if self.widths is None else self.widths)
        for width in chosen:
            context.net.check_width(width)
        return chosen

    def _open_windows(self, context: EvalContext) -> Any:
        return context.open_data().windows(context.trained_context, multiples=(1,), tokens=self.tokens)


def format_width_table(rows: Sequence[Row]) -> str:
    """Cost beside loss; both also as what is more or less than at the largest width."""
    first = max(rows, key=lambda row: row["forward_flops"])
    head = ["width", "parameters", "MFLOPs/token", "ffn FLOPs", "loss", "more loss", "ppl", "agreement"]
    body = [
        [
            format_width(row["width"]),
            f"{row['parameters']:,}",
            format_number(row["forward_flops"] / 1e6, 3),
            f"{row['ffn_flops'] / first['ffn_flops'] - 1:+.1%}",
            format_number(row["loss"], 4),
            f"{row['loss'] / first['loss'] - 1:+.2%}",
            format_number(row["ppl"], 3),
            f"{row['agreement']:.1%}",
        ]
        for row in rows
    ]
    return render_table(head, body, title="loss by width, on the same tokens")


def draw_width_figure(rows: Sequence[Row], path: Path, *, title: str) -> Path:
    """Loss and agreement by FLOPs; AptlabError if the file cannot be written."""
    figure, left, right = make_two_panels(title)
    ordered = sorted(rows, key=lambda row: row["forward_flops"])
    x = [row["forward_flops"] / 1e6 for row in ordered]
    for axes, key, heading in (
        (left, "loss", "loss (nats per token)"),
        (right, "agreement", "share of tokens chosen as by the whole network"),
    ):
        set_heading(axes, heading)
        axes.plot(x, [row[key] for row in ordered], color=COLOURS[0], marker="o", markersize=5, linewidth=1.5)
        for place, row in zip(x, ordered, strict=True):
            axes.annotate(
                format_width(row["width"]), (place, row[key]), xytext=(0, 6), textcoords="offset points", fontsize=8
            )
        axes.set_xlabel("MFLOPs per token")
    return save_figure(figure, path)
