"""Next-token prediction. Legend: B batch, T tokens, V vocabulary."""

from __future__ import annotations

import functools
import math
from typing import Any, ClassVar, Protocol, cast, runtime_checkable

import torch
from torch import Tensor

from aptlab.data.rows import SegmentPlan
from aptlab.errors import ConfigError
from aptlab.models import Decoder
from aptlab.models.cost import count_part_parameters, estimate_cost
from aptlab.nn.positions.rope import list_rope_warnings
from aptlab.nn.width import FULL, Width
from aptlab.objectives import IGNORE, NextToken, Objective, compute_perplexity
from aptlab.tasks.base import (
    Batch,
    NameOption,
    Optim,
    Schedule,
    Task,
    describe_untrained_widths,
    find_target_context,
    find_widths,
)
from aptlab.tasks.segments import SegmentReader

KEY = "segment_states"  # of a checkpoint


@runtime_checkable
class HasTokenBytes(Protocol):
    """Data that knows how many UTF-8 bytes each token stands for, [V]."""

    @property
    def token_bytes(self) -> Any: ...


@runtime_checkable
class HasBytesPerToken(Protocol):
    """Data that knows the UTF-8 bytes per token of its validation text as a whole."""

    @property
    def bytes_per_token(self) -> float: ...


@runtime_checkable
class HasSegmentPlan(Protocol):
    """Data whose rows may be read in windows; None: a row is one pass, and stands alone."""

    @property
    def segment_plan(self) -> SegmentPlan | None: ...


class LanguageTask(Task):
    """A language model: tokens [B, T] in, logits [B, T, V] out, trained for `objective` (next token by default).

    Validation gives val/loss in nats per token, val/ppl = exp(loss), and val/bpb = nats / ln 2 / bytes, in bits per
    byte of the targets that were scored; where the data knows an average alone, bytes = targets times that.

    Rows of several windows (data=segments) are read one window after the other, and what the network keeps goes on from
    batch to batch of training. A checkpoint holds what was kept of all ranks' rows; validation rows begin with nothing.
    """

    net: Decoder
    unit: ClassVar[str] = "tokens"
    validation_sums: ClassVar[int] = 3  # nats, targets, bytes of the targets
    score_name: ClassVar[str] = "-nats per token"

    def __init__(
        self,
        net: Decoder,
        *,
        optim: Optim,
        schedule: Schedule,
        objective: Objective | None = None,
        compile: bool = False,
    ) -> None:
        super().__init__(net, objective=objective or NextToken(), optim=optim, schedule=schedule, compile=compile)
        self.bytes_per_token = 1.0  # until the data says otherwise: tokens are bytes
        self.token_bytes: Tensor | None = None  # [V]; no buffer, which would be rounded with weights of 16 bits
        self.reader: SegmentReader | None = None  # where rows are read in windows

    def bind_data(self, data: object) -> None:
        """Take the bytes that tokens stand for, so that losses can be told in bits per byte, and how rows are read.

        ConfigError for rows of a source and a target.
        """
        if find_target_context(data):
            raise ConfigError(
                "task=language predicts the next token of a text, and these rows are a source and a target; use "
                "task=seq2seq, or data=packed"
            )
        if isinstance(data, HasSegmentPlan) and data.segment_plan is not None:
            self._check_passes()
            self.reader = SegmentReader(data.segment_plan)
        if isinstance(data, HasTokenBytes):
            self.token_bytes = torch.as_tensor(data.token_bytes, dtype=torch.float64)
        elif isinstance(data, HasBytesPerToken):
            self.bytes_per_token = data.bytes_per_token

    def forward(self, batch: Batch, *, trace: bool = False, width: Width | None = None) -> Any:
        """The network's Output, or its Hidden for an objective that needs no logits; `width` of its nested layers."""
        # net.compile() wraps __call__ alone, so `hidden` runs as it is.
        call: Any = self.net if self.objective.needs == "logits" else self.net.hidden
        if self.reader is not None:
            return self.reader.read(call, batch, keep=self.net.training, width=width, trace=trace)
        places = {"positions": batch.get("positions"), "segments": batch.get("segments")}
        return call(batch["tokens"], **places, width=width, trace=trace)

    def on_train_start(self) -> None:
        if self.reader is not None:
            self.reader.begin((self.trainer.global_rank, self.trainer.world_size))

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        if self.reader is not None:
            self.reader.begin_batch(self.global_step)
        return super().training_step(batch, batch_idx)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """What rows keep, of all ranks; every rank is here."""
        if self.reader is not None and (states := self.reader.pack(self.global_step, self._gather_rows)):
            checkpoint[KEY] = states

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.reader is not None:
            self.reader.load(checkpoint.get(KEY, {}))

    def _gather_rows(self, rows: Tensor) -> Tensor:
        if self.trainer.world_size == 1:
            return rows
        return cast(Tensor, self.all_gather(rows)).flatten(0, 1)

    def _check_passes(self) -> None:
        """ConfigError for an objective that needs other passes than one: what a row keeps is of one."""
        widths = find_widths(self.net)
        if self.objective.expect_passes(widths) != {FULL: 1.0} or self.objective.expect_forwards(widths):
            raise ConfigError(
                f"objective: {type(self.objective).__name__} reads a batch more than once, and data=segments keeps one "
                "memory for each row; use objective=next_token, or data=packed"
            )

    def extract_features(self, batch: Batch) -> Tensor:
        """The mean of the last states over the tokens of each row, [B, C], in float32."""
        if self.reader is not None:
            return self.reader.read(self.net.hidden, batch, keep=False).hidden.float().mean(1)
        states = self.net.hidden(batch["tokens"], positions=batch.get("positions"), segments=batch.get("segments"))
        return states.hidden.float().mean(1)

    def count_units(self, batch: Batch) -> int:
        """Tokens read."""
        return batch["tokens"].numel()

    def list_warnings(self, context: int, name_option: NameOption) -> list[str]:
        """What the position rule says about this context, and which widths of nested layers nobody trains."""
        name_rope = functools.partial(name_option, "rope")
        head_dim = self.net.shape.head_sizes()[2]
        lines = list_rope_warnings(self.net.rope, head_dim=head_dim, length=context, name_option=name_rope)
        return lines + describe_untrained_widths(self.net, self.objective)

    def estimate_training_flops(self, context: int) -> int:
        """FLOPs per token of all passes of a step, in the mean where their widths are drawn."""
        widths = find_widths(self.net)
        trained, forward = self.objective.expect_passes(widths), self.objective.expect_forwards(widths)
        flops = sum(times * estimate_cost(self.net, context, width).training for width, times in trained.items())
        flops += sum(times * estimate_cost(self.net, context, width).forward for width, times in forward.items())
        return round(flops)

    def count_part_parameters(self) -> list[tuple[str, int]]:
        return count_part_parameters(self.net)

    def on_validation_epoch_start(self) -> None:
        super().on_validation_epoch_start()
        if self.token_bytes is not None:
            self.token_bytes = self.token_bytes.to(self.device)

    def sum_validation(self, output: Any, batch: Batch) -> Tensor:
        """Nats, targets, and UTF-8 bytes of the targets, [3]."""
        sums = super().sum_validation(output, batch)
        if self.token_bytes is None:
            return torch.cat((sums, sums[1:] * self.bytes_per_token))
        targets = batch["targets"]
        return torch.cat((sums, self.token_bytes[targets[targets != IGNORE]].sum().view(1)))

    def describe_sums(self, sums: list[float]) -> dict[str, float]:
        """loss, ppl and bpb (bits per byte; nan where no target has a byte)."""
        nats, _, size = sums
        loss = super().describe_sums(sums)["loss"]
        return {
            "loss": loss,
            "ppl": compute_perplexity(loss),
            "bpb": nats / math.log(2) / size if size else math.nan,
        }
