"""`eval=sliding`: perplexity of windows that slide over the validation text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from aptlab.evals.base import Eval, EvalContext, Measurement, Row
from aptlab.evals.options import check_longest, choose_lengths, keep_reachable
from aptlab.limits import PositiveInt, validate_limits
from aptlab.report.figure import draw_length_panel
from aptlab.report.style import make_two_panels, save_figure, set_heading
from aptlab.report.table import format_number, render_table

if TYPE_CHECKING:
    from aptlab.data.rows.windows import Windows
    from aptlab.runs.journal import Journal

NUMBER = (int, float)
SHAPE = {"length": int, "start": int, "nats": NUMBER, "tokens": int, "windows": int, "means": NUMBER}  # of a record
NOTE = (
    "loss and ppl weigh every token alike; chunk_ppl is exp of the plain mean over windows, as the evaluations of "
    "YaRN and LongRoPE print it, where the first window's many tokens count no more than another's few"
)


@dataclass(frozen=True, kw_only=True)
class SlidingLoss(Eval):
    """Loss with a window that slides over the text (Press et al. 2022, arXiv:2108.12409, section 2.2).

    lengths    tokens of the window; null = `multiples` of the trained context
    multiples  of the trained context, where no lengths are named
    stride     tokens that the window moves by; all but the first count only these, so each has a long context
    tokens     of text, the same at every length, in segments of the longest window

    rows: `lengths` (length, loss in nats per token, ppl, bpb, tokens, windows, chunk_loss, chunk_ppl), one per length.
    Finished segments are in the journal, so that a broken measurement goes on.
    """

    name: ClassVar[str] = "sliding"
    lengths: Sequence[PositiveInt] | None = None
    multiples: Sequence[PositiveInt] = (1, 2, 4, 8)
    stride: PositiveInt = 256
    tokens: PositiveInt = 65_536

    def __post_init__(self) -> None:
        validate_limits(self)
        self.list_lengths(1)

    def list_lengths(self, trained_context: int) -> tuple[int, ...]:
        """Tokens of each window, the shortest first."""
        return choose_lengths(self.lengths, self.multiples, trained_context)

    def check(self, context: EvalContext) -> None:
        """ConfigError for lengths beyond the model's positions, DataError for those beyond the text."""
        context.open_data().windows(self._choose(context)[-1], multiples=(1,), tokens=self.tokens)

    def measure(self, context: EvalContext) -> Measurement:
        """Every length over the same segments; see `scoring.sliding`."""
        from aptlab.evals.scoring.sliding import summarize_segments

        lengths = self._choose(context)
        windows = context.open_data().windows(lengths[-1], multiples=(1,), tokens=self.tokens)
        text = context.open_data().fingerprint
        options = {name: value for name, value in self.describe_options().items() if name != "multiples"}
        with context.open_journal({**options, "lengths": list(lengths)}, text=text, shape=SHAPE) as journal:
            self._score_missing(context, lengths, windows, journal)
            segments = list(journal.records)
        rate = windows.meta["bytes_per_token"]
        rows = [
            summarize_segments(length, [segment for segment in segments if segment["length"] == length], rate)
            for length in lengths
        ]
        draw = partial(draw_sliding_figure, rows, title=context.title, context=context.trained_context)
        return Measurement(
            rows={"lengths": rows},
            tables=[format_sliding_table(rows, self.stride, context.trained_context)],
            figures={"figure.png": draw},
            facts={"data": {"fingerprint": text, **windows.meta}, "stride": self.stride, "note": NOTE},
        )

    def _choose(self, context: EvalContext) -> tuple[int, ...]:
        lengths = self.list_lengths(context.trained_context)
        lengths = keep_reachable(lengths, context.net) if self.lengths is None else lengths
        check_longest(lengths, context.net, context.trained_context)
        return lengths

    def _score_missing(self, context: EvalContext, lengths: Sequence[int], windows: Windows, journal: Journal) -> None:
        """Score the segments that the journal does not hold yet, the short windows first."""
        import torch

        from aptlab.evals.scoring.sliding import score_segment

        tokens = windows.side.tokens
        done = {(row["length"], row["start"]) for row in journal.records}
        plan = [(length, int(start)) for length in lengths for start in windows.starts]
        with (
            context.borrow_network() as net,
            context.open_progress(self.name, total=len(plan), done=len(done)) as bar,
        ):
            for length, start in plan:
                if (length, start) in done:
                    continue
                text = torch.from_numpy(tokens[start : start + windows.length + 1].astype("int64"))
                sums = score_segment(
                    net,
                    text,
                    length=length,
                    stride=self.stride,
                    device=context.device,
                    precision=context.precision,
                    prefix=context.tokenizer.prefix,
                )
                journal.append({"length": length, "start": start, **sums})
                bar.advance(note=f"{length:,} tokens")


def format_sliding_table(rows: list[dict[str, Any]], stride: int, context: int) -> str:
    """Loss and perplexity by window, and what other evaluators print."""
    head = ["window", "tokens", "windows", "loss", "ppl", "bpb", "chunk ppl"]
    body = [
        [
            f"{row['length']:,}",
            f"{row['tokens']:,}",
            f"{row['windows']:,}",
            format_number(row["loss"], 4),
            format_number(row["ppl"], 3),
            format_number(row["bpb"], 4),
            format_number(row["chunk_ppl"], 3),
        ]
        for row in rows
    ]
    title = f"loss in a sliding window, stride {stride:,} (trained at {context:,} tokens)"
    return f"{render_table(head, body, title=title)}\nnote: {NOTE}"


def draw_sliding_figure(lengths: Sequence[Row], path: Path, *, title: str, context: int) -> Path:
    """Perplexity with every token counted once, and with every window; AptlabError if it cannot be written."""
    figure, left, right = make_two_panels(title)
    draw_length_panel(left, lengths, context)
    set_heading(left, "perplexity by window, every token once")
    draw_length_panel(right, [{**row, "ppl": row["chunk_ppl"]} for row in lengths], context)
    set_heading(right, "the same with every window counted alike")
    return save_figure(figure, path)
