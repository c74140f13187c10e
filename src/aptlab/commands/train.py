"""`aptlab train`: plan without torch, then train."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from aptlab.config import compose
from aptlab.device import Precision
from aptlab.errors import RankLost
from aptlab.limits import FolderName, NonNegativeInt, PositiveInt
from aptlab.runs.notice import leave_soon
from aptlab.training.inside import train_inside_process


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """Root keys of `aptlab train`; its groups are the parts of the experiment.

    seed       of weights, dropout and sample order
    context    tokens per training sample
    vocab      rows of the embedding; None: what the tokenizer has
    precision  auto is bf16-mixed on CUDA, else 32-true
    compile    compile the network with torch.compile
    job        name of the folder under paths.root
    run_dir    exact folder of the run; None: a new one
    ckpt       last (of the newest run), best (of all runs), a checkpoint or a run folder to continue from
    load       auto; resume: all state, in the same folder; weights: a new run from these weights; remap: the same with
               another tokenizer, the embedding's rows moved to its ids; importance: from these weights, with hidden
               units sorted for the widths of a nested network
    """

    seed: NonNegativeInt = 0
    context: PositiveInt = 256
    vocab: PositiveInt | None = None
    precision: Precision = "auto"
    compile: bool = False
    job: FolderName = "train"
    run_dir: str | None = None
    ckpt: str | None = None
    load: Literal["auto", "resume", "weights", "remap", "importance"] = "auto"


def run(args: list[str]) -> int:
    """Check the whole request first; nothing is written and torch is not imported until it holds. Returns 0."""
    try:
        train_inside_process(args)
    except RankLost as error:
        leave_soon(error.exit_code)  # a process group whose other end is gone may not let go of the process
        raise
    return 0


def resolve_config(args: list[str]) -> dict[str, Any]:
    """What `--cfg` prints: with a checkpoint, what its overrides and its rule add."""
    from aptlab.training.plan import plan_training, read_root_value

    config = compose("train", args) if read_root_value(args, "ckpt") is None else plan_training(args).config
    return config.resolved()
