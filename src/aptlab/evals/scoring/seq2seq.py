"""Loss of right targets and what is written in their place. Legend: B rows, T tokens of a target, V vocabulary."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from aptlab.data.rows.base import BatchPlan
from aptlab.data.rows.epochs import ValidationRows
from aptlab.evals.scoring.lengths import make_autocast
from aptlab.models import EncoderDecoder
from aptlab.objectives import IGNORE, compute_perplexity, compute_token_nll
from aptlab.sample.rules import SamplingRules
from aptlab.sample.targets import SourceCodec, TargetOptions, write_block

BATCH = 32  # rows that are read together

Scored = dict[str, Any]


@torch.inference_mode()
def score_pairs(
    net: Any,
    data: Any,
    *,
    rows: int,
    search: tuple[int, float],
    device: str = "cpu",
    precision: str = "32-true",
    progress: Callable[[int], None] | None = None,
) -> list[Scored]:
    """A dict for each validation row: source, target and written as text, nats, targets, right, exact, found, ids.

    net     an `EncoderDecoder` in eval mode on `device`
    data    a data module of pairs
    search  beams and length penalty
    """
    table = data.val_dataloader().rows.table
    chosen = ValidationRows(table, BatchPlan(batch=min(BATCH, rows)), limit=rows)
    codec = SourceCodec(data.tokenizer, data.vocab_size - data.tokenizer.vocab_size)
    options = TargetOptions(
        rules=SamplingRules(temperature=0),
        max_new_tokens=data.target_context,
        beams=search[0],
        length_penalty=search[1],
    )
    scored: list[Scored] = []
    with make_autocast(torch.device(device), precision):
        for number in range(len(chosen)):
            arrays = chosen.batch(number)
            batch = {key: torch.from_numpy(value[arrays["ids"] >= 0]).to(device) for key, value in arrays.items()}
            scored += score_batch(net, batch, codec, options)
            if progress is not None:
                progress(len(batch["ids"]))
    return scored


def score_batch(
    net: EncoderDecoder, batch: dict[str, Tensor], codec: SourceCodec, options: TargetOptions
) -> list[Scored]:
    """The rows of one batch."""
    targets_BT, segments = batch["targets"], batch.get("segments")
    logits_BTV = net(batch["tokens"], decoder_tokens=batch["decoder_tokens"], segments=segments).logits
    nats_B = compute_token_nll(logits_BTV, targets_BT, "none").double().sum(1).tolist()
    right_BT = (logits_BTV.argmax(-1) == targets_BT).tolist()
    kept_BS = torch.ones_like(batch["tokens"], dtype=torch.bool) if segments is None else segments != 0
    sources = [row[kept].tolist() for row, kept in zip(batch["tokens"], kept_BS, strict=True)]
    written = write_block(net, codec, sources, options, [0] * len(sources))
    scored = []
    for row, (source, (tokens, _)) in enumerate(zip(sources, written, strict=True)):
        ids = [token for token in targets_BT[row].tolist() if token != IGNORE]
        right = sum(right_BT[row][: len(ids)])
        scored.append(
            {
                "source": codec.decode_target(source[:-1]),
                "target": codec.decode_target(ids[:-1]),
                "written": codec.decode_target(tokens),
                "nats": nats_B[row],
                "targets": len(ids),
                "right": right,
                "exact": right == len(ids),
                "found": tokens == ids[:-1],
                "ids": ids,
            }
        )
    return scored


def average_rows(scored: Sequence[Scored]) -> dict[str, Any]:
    """The numbers of several rows: those of tokens weighted by targets, those of rows by rows."""
    targets = sum(row["targets"] for row in scored)
    loss = sum(row["nats"] for row in scored) / targets
    return {
        "rows": len(scored),
        "targets": targets,
        "loss": loss,
        "ppl": compute_perplexity(loss),
        "accuracy": sum(row["right"] for row in scored) / targets,
        "exact": sum(row["exact"] for row in scored) / len(scored),
        "written": sum(row["found"] for row in scored) / len(scored),
        "unigram": measure_unigram_entropy([row["ids"] for row in scored]),
    }


def measure_unigram_entropy(rows: Sequence[Sequence[int]]) -> float:
    """Entropy of the tokens by their own frequencies, in nats per token: -sum p ln p."""
    counts = Counter(token for row in rows for token in row)
    total = sum(counts.values())
    return -sum(count / total * math.log(count / total) for count in counts.values())
