"""Questions with known answers in long prompts: what `eval=passkey`, `eval=needle` and `eval=ruler` share."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from aptlab.errors import ConfigError
from aptlab.evals.base import Eval, EvalContext, Measurement, Row
from aptlab.evals.options import check_longest, choose_lengths, keep_reachable
from aptlab.evals.retrieval_tables import (
    NOTE,
    draw_retrieval_heatmap,
    format_cells_csv,
    format_retrieval_table,
    format_samples_csv,
)
from aptlab.evals.tasks.haystack import StoredTexts
from aptlab.evals.tasks.sample import Budget, SyntheticTask, TaskSampler
from aptlab.limits import NonNegativeInt, PositiveInt, validate_limits
from aptlab.runs.journal import Journal
from aptlab.shown import print_shown

if TYPE_CHECKING:
    from aptlab.data.tokenizers import Tokenizer

log = logging.getLogger("aptlab")
BLOCK = 64  # samples that are made before they are answered; prompts are long, so not all at once

NUMBER = (int, float)
DEPTH = (int, float, type(None))
SHAPE = {"task": str, "length": int, "asked_depth": DEPTH, "index": int, "depth": DEPTH, "score": NUMBER}
SHAPE |= {"token_accuracy": NUMBER, "loss": NUMBER, "nats": NUMBER, "tokens": int, "generated": str, "answers": list}


@dataclass(frozen=True, kw_only=True)
class RetrievalEval(Eval):
    """Questions with known answers in prompts of given lengths; the tasks are those of a subclass.

    lengths    tokens of prompt and answer together; null = `multiples` of the trained context. Those that a task does
               not fit in are left out with a warning, and so are multiples beyond the positions of the model
    multiples  of the trained context, where no lengths are named
    samples    per task, length and depth
    seed       of prompts; task, length, depth and the number of the sample decide the rest
    budget     tokens for the answer: fit (the longest answer and four more) | published (RULER's 30 to 128)

    rows: `grid` (task, length, depth, samples, score, low, high, token_accuracy, loss), one per cell; `lengths`, the
    means of each length; `forms`, what each task became at each length. Files: samples.csv and grid.csv.
    Every answer is in the journal before the next batch is read, so that a broken measurement goes on.
    """

    lengths: Sequence[PositiveInt] | None = None
    multiples: Sequence[PositiveInt] = (1, 2, 4, 8)
    samples: PositiveInt = 20
    seed: NonNegativeInt = 0
    budget: Budget = "fit"

    def __post_init__(self) -> None:
        validate_limits(self)
        self.list_lengths(1)
        self.list_tasks()
        self.list_depths()

    @abstractmethod
    def list_tasks(self) -> tuple[SyntheticTask, ...]:
        """The tasks, in the order of the table."""

    def list_depths(self) -> tuple[float | None, ...]:
        """Depths of the answer in the prompt, 0 to 1; None = drawn for each sample."""
        return (None,)

    def list_lengths(self, trained_context: int) -> tuple[int, ...]:
        """Tokens of prompt and answer, the shortest first."""
        return choose_lengths(self.lengths, self.multiples, trained_context)

    @property
    def reads_data(self) -> bool:
        """Whether prompts hold text of the data module."""
        return any(getattr(task, "haystack", None) == "text" for task in self.list_tasks())

    def check(self, context: EvalContext) -> None:
        """ConfigError for lengths beyond the model's positions, and where a task fits in none of them."""
        self._make_samplers(context)

    def measure(self, context: EvalContext) -> Measurement:
        """Ask and answer; see `tasks` and `scoring.retrieval`."""
        from aptlab.evals.scoring.retrieval import average_outcomes, summarize_grid

        samplers = self._make_samplers(context)
        lengths = tuple(dict.fromkeys(sampler.length for sampler in samplers))
        text = context.open_data().fingerprint if self.reads_data else None
        options = {name: value for name, value in self.describe_options().items() if name != "multiples"}
        with context.open_journal({**options, "lengths": list(lengths)}, text=text, shape=SHAPE) as journal:
            self._answer_missing(context, samplers, journal)
            rows = self._sort_rows(journal.records, lengths)
        grid = summarize_grid(rows)
        means = [{"length": n, **average_outcomes([row for row in rows if row["length"] == n])} for n in lengths]
        title = f"{self.name}: {context.title}"
        return Measurement(
            rows={"lengths": means, "grid": grid, "forms": [describe_form(sampler) for sampler in samplers]},
            tables=[format_retrieval_table(grid, means, self.name, context.trained_context)],
            figures={"heatmap.png": partial(draw_retrieval_heatmap, grid, means, title=title)},
            facts={"data": None if text is None else {"fingerprint": text}, "note": NOTE},
            files={"grid.csv": format_cells_csv(grid), "samples.csv": format_samples_csv(rows)},
        )

    def _make_samplers(self, context: EvalContext) -> list[TaskSampler]:
        """One sampler per length and task. Raises ConfigError for what cannot be asked."""
        lengths = self.list_lengths(context.trained_context)
        if self.lengths is None:
            lengths = keep_reachable(lengths, context.net)
        check_longest(lengths, context.net, context.trained_context)
        check_vocabulary(context)
        texts = StoredTexts(context.open_data().store.val, context.tokenizer) if self.reads_data else None
        found: list[TaskSampler] = []
        short: dict[int, ConfigError] = {}
        for length in lengths:
            try:
                found += [self._make_sampler(task, length, context.tokenizer, texts) for task in self.list_tasks()]
            except ConfigError as error:
                short[length] = error
        if not found:
            raise short[lengths[0]]
        if short:
            reason = str(list(short.values())[-1]).removeprefix("lengths: ").partition(";")[0]
            log.warning("left out, too short: %s tokens (%s)", ", ".join(f"{length:,}" for length in short), reason)
        return found

    def _make_sampler(
        self, task: SyntheticTask, length: int, tokenizer: Tokenizer, texts: StoredTexts | None
    ) -> TaskSampler:
        return TaskSampler(task, tokenizer=tokenizer, length=length, texts=texts, seed=self.seed, budget=self.budget)

    def _answer_missing(self, context: EvalContext, samplers: Sequence[TaskSampler], journal: Journal) -> None:
        """Answer what the journal does not hold yet; every outcome is on disk before the next batch is read."""
        from aptlab.evals.scoring import retrieval

        done = {(row["task"], row["length"], row["asked_depth"], row["index"]) for row in journal.records}
        total = len(samplers) * len(self.list_depths()) * self.samples
        if done:
            print_shown(f"going on after {len(done):,} of {total:,} samples", flush=True)
        with context.borrow_network() as net, context.open_progress(self.name, total=total, done=len(done)) as bar:
            for sampler in samplers:
                missing = [
                    (index, depth)
                    for depth in self.list_depths()
                    for index in range(self.samples)
                    if (sampler.asked.name, sampler.length, depth, index) not in done
                ]
                for block in split_blocks(missing):
                    samples = [sampler.make(index, depth) for index, depth in block]
                    for outcome in retrieval.answer_samples(
                        net, samples, tokenizer=context.tokenizer, device=context.device, precision=context.precision
                    ):
                        journal.append(outcome.plain())
                        bar.advance(note=f"{sampler.asked.name} at {sampler.length:,}")

    def _sort_rows(self, rows: Sequence[Row], lengths: Sequence[int]) -> list[Row]:
        """Rows by task, length, depth and index, whatever the order in which they were answered."""
        tasks = [task.name for task in self.list_tasks()]
        return sorted(
            rows,
            key=lambda row: (
                tasks.index(row["task"]),
                lengths.index(row["length"]),
                -1.0 if row["asked_depth"] is None else row["asked_depth"],
                row["index"],
            ),
        )


def check_vocabulary(context: EvalContext) -> None:
    """ConfigError for a tokenizer with more tokens than the network has."""
    if context.tokenizer.vocab_size > context.net.vocab:
        raise ConfigError(
            f"the tokenizer has {context.tokenizer.vocab_size} tokens and the model {context.net.vocab}; "
            "evaluate a checkpoint that was trained with its own tokenizer"
        )


def split_blocks(pairs: Sequence[Any], size: int = BLOCK) -> Iterator[Sequence[Any]]:
    """Runs of at most `size` items, in order."""
    for first in range(0, len(pairs), size):
        yield pairs[first : first + size]


def describe_form(sampler: TaskSampler) -> dict[str, Any]:
    """The form that a task took at a length, and the budget of its answers."""
    parameters: Mapping[str, Any] = sampler.task.parameters()
    return {"task": sampler.asked.name, "length": sampler.length, "budget": sampler.budget, **parameters}
