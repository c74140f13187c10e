"""Whether a text is long enough to train on, told before torch is there: rows of a small text are counted. No torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from aptlab.config import Config, build_known_rule, inspect_inputs, locate_error
from aptlab.data.rows.base import BatchPlan, RowKind
from aptlab.data.rows.packed import Packed
from aptlab.data.sources.base import Source
from aptlab.data.store.plan import plan_split
from aptlab.data.store.split import Split, check_sides
from aptlab.data.tokenizers.base import TokenizerRule
from aptlab.errors import AptlabError, DataError

TEXT_DATA = "aptlab.data.module.TextData"  # the data whose parts are known here
LONGEST = 1 << 24  # bytes of a text that is read for it
AMPLE = 4  # times what is needed, even of the smaller side: such a text is not read


def inspect_training(config: Config, *, asked: dict[str, list[str]] | None = None) -> None:
    """`inspect_inputs` for training. Then raises DataError where the text is too short for its rows and batches."""
    inspect_inputs(config, train=True, asked=asked)
    inspect_text_size(config)


def inspect_text_size(config: Config) -> None:
    """Raise one DataError with what a text of known size cannot fill."""
    try:
        found = list(find_text_size_problems(config))
    except AptlabError as error:
        raise locate_error(error) from None
    if found:
        raise DataError("\n".join(found))


def find_text_size_problems(config: Config) -> Iterator[str]:
    """A side of the text without a row, and an epoch without a batch; nothing where only encoding could tell."""
    plain = config.resolved()
    data = plain.get("data") or {}
    if data.get("_target_") != TEXT_DATA:
        return
    source = build_known_rule(config, "data.source")
    size = source.count_bytes() if isinstance(source, Source) else None
    if size is None or size > LONGEST:  # the rest need not be built
        return
    tokenizer = build_known_rule(config, "data.tokenizer")
    rows, split = build_known_rule(config, "data.rows") or Packed(), build_known_rule(config, "data.split") or Split()
    parts = ((tokenizer, TokenizerRule), (rows, RowKind), (split, Split))
    if not all(isinstance(part, kind) for part, kind in parts) or tokenizer.count_most_tokens(0, 0) is None:
        return
    context, plan = data["context"], BatchPlan(batch=data["batch"], world=count_devices(plain.get("device") or {}))
    if not is_worth_reading(size, split, need=rows.count_row_tokens(context) * plan.global_batch):
        return
    sizes = measure_sides(source, split)
    try:
        check_sides({"train": sizes[0][1], "val": sizes[1][1]}, split)
    except DataError as error:
        yield f"data.{error}"
        return
    train, val = (tokenizer.count_most_tokens(*side) for side in sizes)
    for problem in rows.find_size_problems(train, context=context, plan=plan):
        yield f"data.{problem}" if problem.startswith("batch=") else problem
    if (plain.get("trainer") or {}).get("limit_val_batches") != 0:
        for problem in rows.find_validation_problems(val, context=context):
            path = "data.rows." if problem.startswith("val_segments=") else ""
            yield path + problem.replace(" split.", " data.split.")


def is_worth_reading(size: int, split: Split, *, need: int) -> bool:
    """Whether a text of so many bytes is near what is needed, even on its smaller side."""
    return size * min(split.val_fraction, 1 - split.val_fraction) < AMPLE * need


def measure_sides(source: Source, split: Split) -> tuple[tuple[int, int], tuple[int, int]]:
    """(bytes, documents) of the text that is trained on, and of the text that is validated on."""
    plan = plan_split(split, (text for _, text in source.documents()))
    sizes, counts = [0, 0], [0, 0]
    for _, text in source.documents():
        for side, part in enumerate(plan.divide(text)):
            sizes[side] += len(part.encode("utf-8", "surrogatepass"))
            counts[side] += bool(part)
    return (sizes[0], counts[0]), (sizes[1], counts[1])


def count_devices(device: Mapping[str, Any]) -> int:
    """Processes of an option that says how many run on each of how many hosts.

    1 for any other, for whether this host has its devices is the first question, and only torch answers it.
    """
    counts = [device.get(key) for key in ("devices", "nodes")] if "nodes" in device else []
    return math.prod(count for count in counts if isinstance(count, int) and count > 0)
