"""`eval=documents`: what memory is worth, by place in whole documents that are read in windows."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from aptlab.errors import DataError
from aptlab.evals.base import Eval, EvalContext, Measurement, Row
from aptlab.limits import PositiveInt, validate_limits
from aptlab.report.style import COLOURS, make_two_panels, save_figure, set_heading
from aptlab.report.table import format_number, render_table

NUMBER = (int, float)
SHAPE = {"document": int, "kept": list, "fresh": list, "counts": list}  # of a record: sums by window


@dataclass(frozen=True, kw_only=True)
class DocumentLoss(Eval):
    """Loss of whole documents, read in windows with what was kept of earlier ones, and with every window afresh.

    window   tokens of a window, null = the trained context
    tokens   of validation text at most; the longest documents first, for a document of one window says nothing
    longest  tokens of a document that are read, or fewer where the model has fewer positions

    rows: `places` (first and last window, from 1; loss with memory, loss of fresh windows, gain, tokens), in buckets
    that double. Both read the same tokens at the same positions, so that the gain is the memory's.
    """

    name: ClassVar[str] = "documents"
    window: PositiveInt | None = None
    tokens: PositiveInt = 65_536
    longest: PositiveInt = 65_536

    def __post_init__(self) -> None:
        validate_limits(self)

    def check(self, context: EvalContext) -> None:
        """DataError where no document is longer than a window."""
        self._choose(context)

    def measure(self, context: EvalContext) -> Measurement:
        """Every document twice; see `scoring.documents`."""
        from aptlab.evals.scoring.documents import summarize_windows

        window, documents = self._choose(context)
        text = context.open_data().fingerprint
        options = self.describe_options() | {"window": window}
        with context.open_journal(options, text=text, shape=SHAPE) as journal:
            self._score_missing(context, window, documents, journal)
            rows = summarize_windows(list(journal.records))
        return Measurement(
            rows={"places": rows},
            tables=[format_place_table(rows, window)],
            figures={"figure.png": partial(draw_place_figure, rows, title=context.title)},
            facts={"data": {"fingerprint": text, "documents": len(documents)}, "window": window},
        )

    def _choose(self, context: EvalContext) -> tuple[int, list[tuple[int, int]]]:
        """Tokens of a window, and where documents begin and end in the text: at least two windows each."""
        window = self.window or context.trained_context
        offsets = context.open_data().store.val.offsets.tolist()
        longest = min(self.longest, context.net.max_positions)
        spans = [(first, min(last, first + longest)) for first, last in itertools.pairwise(offsets)]
        long = sorted((span for span in spans if span[1] - span[0] > window + 1), key=lambda span: span[0] - span[1])
        if not long:
            most = max((last - first for first, last in spans), default=0)
            raise DataError(
                f"no document of the validation text is longer than a window of {window} tokens; the longest has "
                f"{most}; use window={max(1, most // 4)}, or longer documents"
            )
        chosen, left = [], self.tokens
        for first, last in long:
            if chosen and last - first > left:
                break
            chosen.append((first, last))
            left -= last - first
        return window, sorted(chosen)

    def _score_missing(
        self, context: EvalContext, window: int, documents: Sequence[tuple[int, int]], journal: Any
    ) -> None:
        """Score the documents that the journal does not hold yet."""
        import torch

        from aptlab.evals.scoring.documents import score_document

        tokens, done = context.open_data().store.val.tokens, {row["document"] for row in journal.records}
        with (
            context.borrow_network() as net,
            context.open_progress(self.name, total=len(documents), done=len(done)) as bar,
        ):
            for first, last in documents:
                if first in done:
                    continue
                text = torch.from_numpy(tokens[first:last].astype("int64"))
                sums = score_document(
                    net,
                    text,
                    window=window,
                    device=context.device,
                    precision=context.precision,
                    prefix=context.tokenizer.prefix,
                )
                journal.append({"document": first, **sums})
                bar.advance(note=f"{last - first:,} tokens")


def format_place_table(rows: Sequence[Row], window: int) -> str:
    """Losses by window, and what the memory is worth."""
    head = ["windows", "tokens", "loss with memory", "loss without", "gain"]
    body = [
        [
            str(row["first"]) if row["first"] == row["last"] else f"{row['first']}-{row['last']}",
            f"{row['tokens']:,}",
            *(format_number(row[name], 4) for name in ("loss", "fresh", "gain")),
        ]
        for row in rows
    ]
    title = f"loss by window of the document, {window:,} tokens each (nats per token)"
    return render_table(head, body, title=title)


def draw_place_figure(rows: Sequence[Row], path: Path, *, title: str) -> Path:
    """Both losses left, the gain right, by the last window of each bucket; AptlabError if it cannot be written."""
    figure, left, right = make_two_panels(title)
    places = [row["last"] for row in rows]
    set_heading(left, "loss by window of the document (nats per token)")
    for number, (name, label) in enumerate((("loss", "with memory"), ("fresh", "every window afresh"))):
        left.plot(places, [row[name] for row in rows], color=COLOURS[number], marker="o", markersize=4, label=label)
    left.legend(frameon=False)
    set_heading(right, "what the memory is worth (nats per token)")
    right.plot(places, [row["gain"] for row in rows], color=COLOURS[0], marker="o", markersize=4)
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_xticks(places, [str(place) for place in places])
        axes.set_xlabel("windows of the document")
    return save_figure(figure, path)
