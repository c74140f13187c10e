"""`eval=seq2seq`: what an encoder-decoder writes for the sources of the validation side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from aptlab.data.languages import get_detector
from aptlab.errors import ConfigError
from aptlab.evals.base import Eval, EvalContext, Measurement, Row
from aptlab.limits import NonNegative, NonNegativeInt, PositiveInt, validate_limits
from aptlab.report.table import format_number, render_table
from aptlab.sample.screen import escape_controls


@dataclass(frozen=True, kw_only=True)
class Seq2SeqScores(Eval):
    """Losses of the right targets, and targets that the model writes by itself.

    rows            validation rows, spread evenly over them
    beams           hypotheses of a beam search; 1 = the likeliest token each time
    length_penalty  of the search, see `aptlab.sample.beam.BeamRule`
    languages       ISO 639 codes: one more row of the table for the language of each source, as detected among them
    examples        rows that are shown

    rows: `pairs` (language, rows, targets, loss in nats per token, ppl, accuracy and exact as in validation, written,
    unigram), the first one of all languages; `examples` (source, target, written). `written` is the share of rows whose
    whole target the model writes from its source alone. `unigram` is the entropy of the measured targets by their
    frequencies, in nats per token: no model that ignores source and order has a smaller loss on them.
    """

    name: ClassVar[str] = "seq2seq"
    reads_source: ClassVar[bool] = True
    rows: PositiveInt = 256
    beams: PositiveInt = 1
    length_penalty: NonNegative = 1.0
    languages: Sequence[str] = ()
    examples: NonNegativeInt = 5

    def __post_init__(self) -> None:
        validate_limits(self)

    def check(self, context: EvalContext) -> None:
        """ConfigError for data without pairs, and where no language can be detected."""
        if self.languages:
            get_detector(tuple(self.languages))
        if not getattr(context.open_data(), "target_context", 0):  # data of another package may say nothing
            raise ConfigError(
                "eval=seq2seq reads rows of a source and a target, and these data have none; use "
                "data=span_corruption or data=pairs"
            )

    def measure(self, context: EvalContext) -> Measurement:
        """Every row once by its right target, and once by what is written; see `scoring.seq2seq`."""
        from aptlab.evals.scoring.seq2seq import average_rows, score_pairs

        self.check(context)
        data = context.open_data()
        with context.borrow_network() as net, context.open_progress(self.name, total=self.rows) as bar:
            scored = score_pairs(
                net,
                data,
                rows=self.rows,
                search=(self.beams, self.length_penalty),
                device=context.device,
                precision=context.precision,
                progress=lambda count: bar.advance(count, "rows"),
            )
        if self.languages:
            detect = get_detector(tuple(self.languages)).detect
            for row in scored:
                row["language"] = detect(row["source"]).code
        codes = sorted({row["language"] for row in scored}) if self.languages else []
        parts = {"all": scored, **{code: [row for row in scored if row["language"] == code] for code in codes}}
        table = [{"language": code, **average_rows(part)} for code, part in parts.items()]
        examples = [{key: row[key] for key in ("source", "target", "written")} for row in scored[: self.examples]]
        return Measurement(
            rows={"pairs": table, "examples": examples},
            tables=[format_pair_table(table), format_examples(examples)],
            facts={"data": {"fingerprint": data.fingerprint, "name": data.summary()["name"]}},
        )


def format_pair_table(rows: Sequence[Row]) -> str:
    """One line a language."""
    head = ["language", "rows", "loss", "unigram", "ppl", "accuracy", "exact", "written"]
    body = [
        [
            row["language"],
            f"{row['rows']:,}",
            *(format_number(row[key], 4) for key in ("loss", "unigram")),
            format_number(row["ppl"], 3),
            *(f"{row[key]:.1%}" for key in ("accuracy", "exact", "written")),
        ]
        for row in rows
    ]
    return render_table(head, body, title="targets of the validation side")


def format_examples(rows: Sequence[dict[str, Any]]) -> str:
    """Source, right target and written one, each on a line of its own."""
    names = {"source": "source ", "target": "target ", "written": "written"}
    lines = [f"  {names[key]} | {' '.join(escape_controls(row[key]).split())}" for row in rows for key in names]
    return "\n".join(["", *lines, ""]) if lines else ""
