"""How well a random text is continued where it is repeated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from aptlab.errors import ConfigError
from aptlab.evals import Eval, EvalContext, Measurement
from aptlab.limits import NonNegativeInt, PositiveInt, validate_limits


@dataclass(frozen=True, kw_only=True)
class Copying(Eval):
    """Loss of random tokens that were read before, in nats per token.

    lengths  tokens of the text before it is repeated
    samples  per length
    seed     of the texts
    """

    name: ClassVar[str] = "copying"
    lengths: Sequence[PositiveInt] = (8, 16)
    samples: PositiveInt = 3
    seed: NonNegativeInt = 0

    def __post_init__(self) -> None:
        validate_limits(self)
        if not self.lengths:
            raise ConfigError("eval.lengths=[] copies nothing; choose lengths such as eval.lengths=[8,16]")

    @property
    def reads_data(self) -> bool:
        """No: the texts are random."""
        return False

    def measure(self, context: EvalContext) -> Measurement:
        """One row per length; every sample is in the journal."""
        plan = [(length, index) for length in self.lengths for index in range(self.samples)]
        with context.open_journal(self.describe_options()) as journal, context.borrow_network() as net:
            done = {(row["length"], row["index"]) for row in journal.records}
            with context.open_progress(self.name, total=len(plan), done=len(done)) as bar:
                for length, index in plan:
                    if (length, index) not in done:
                        loss = self.score(net, length, index)
                        journal.append({"length": length, "index": index, "loss": loss})
                        bar.advance(note=f"{length} tokens")
            records = list(journal.records)
        rows = [{"length": length, "loss": average(records, length)} for length in self.lengths]
        table = "\n".join(f"copying {row['length']:>4} tokens: loss {row['loss']:.4f}" for row in rows)
        return Measurement(
            rows={"lengths": rows}, tables=[table], figures={"copying.png": partial(draw, rows, context.title)}
        )

    def score(self, net: Any, length: int, index: int) -> float:
        """Mean loss of the repeated half of one sample."""
        import torch

        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + length * 1009 + index)
        half = torch.randint(net.vocab, (length,), generator=generator)
        tokens = torch.cat([half, half]).to(next(net.parameters()).device)
        with torch.inference_mode():
            chances = net(tokens[None, :-1]).logits[0].double().log_softmax(-1)
        return -chances[length - 1 :].gather(1, tokens[length:, None]).mean().item()


def average(records: Sequence[Mapping[str, Any]], length: int) -> float:
    """Mean loss over the samples of a length."""
    losses = [row["loss"] for row in sorted(records, key=lambda row: row["index"]) if row["length"] == length]
    return sum(losses) / len(losses)


def draw(rows: Sequence[Mapping[str, Any]], title: str, path: Path) -> None:
    """Loss against length."""
    from matplotlib.figure import Figure

    figure = Figure()
    axes = figure.subplots()
    axes.plot([row["length"] for row in rows], [row["loss"] for row in rows], marker="o")
    axes.set_title(title)
    figure.savefig(path)
