"""What a run measures at its end: the evals of its configuration, on the network as it is in memory."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aptlab.callbacks.checkpoints import Checkpoints
from aptlab.callbacks.lookup import find_callbacks
from aptlab.checkpoint import read_manifest
from aptlab.checkpoint.manifest import format_checkpoint_name
from aptlab.config import Config
from aptlab.errors import AptlabError, ConfigError
from aptlab.evals.base import Eval, EvalContext, EvalFolder, Measurement
from aptlab.evals.context import build_eval
from aptlab.evals.runner import measure_eval
from aptlab.tasks.base import count_parameters
from aptlab.training.labels import label_choices
from aptlab.training.protocols import TokenizedData
from aptlab.training.state import TrainParts, TrainRun

log = logging.getLogger("aptlab")


@dataclass
class EndResults:
    """Measurements by the key of the configuration, and the message of each eval that failed."""

    measured: dict[str, tuple[Eval, Measurement]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def lengths(self) -> list[dict[str, Any]]:
        """Rows of the first eval by length, empty where there is none."""
        rows = [found.rows["lengths"] for evaluation, found in self.measured.values() if evaluation.name == "lengths"]
        return [dict(row) for row in rows[0]] if rows else []

    def plain(self) -> dict[str, Any]:
        """Rows of all other evals as result.json holds them, and {"error": message} for those that failed."""
        others = {key: found.rows for key, (evaluation, found) in self.measured.items() if evaluation.name != "lengths"}
        rows = {key: {name: list(rows) for name, rows in tables.items()} for key, tables in others.items()}
        return rows | {key: {"error": message} for key, message in self.failed.items()}


def build_evals(config: Config) -> dict[str, Eval]:
    """The evals of `config.cfg.evals`, in their order; an entry that is null is left out."""
    nodes: Mapping[str, Any] = config.stored().get("evals") or {}
    return {key: build_eval(node) for key, node in nodes.items() if node is not None}


def check_evals(parts: TrainParts) -> None:
    """Ask every eval what it knows to be wrong before training; ConfigError and DataError name the eval."""
    context = make_eval_context(parts, parts.trainer_args["precision"], folder=EvalFolder())
    for key, evaluation in parts.evals.items():
        if evaluation.needs_tokens and not isinstance(parts.data, TokenizedData):
            raise ConfigError(
                f"evals.{key}: eval={evaluation.name} measures a language model, and {type(parts.data).__name__} has "
                f"no tokens; use evals=none, or evals.{key}=null"
            )
        try:
            evaluation.check_network(context.net)
            evaluation.check(context)
        except AptlabError as error:
            raise type(error)(f"evals.{key}: {error}") from error


def make_eval_context(run: TrainParts | TrainRun, precision: str, *, folder: EvalFolder, step: int = 0) -> EvalContext:
    """The network, tokenizer and data of a run as evals are given them."""
    data, config = run.data, run.config
    # An eval of another kind of task reads another kind of network, and no tokenizer.
    net: Any = run.task.net
    tokenizer: Any = data.tokenizer if isinstance(data, TokenizedData) else None
    return EvalContext(
        net=net,
        tokenizer=tokenizer,
        device=run.device.torch_device,
        precision=precision,
        trained_context=config.cfg.context,
        title=write_title(run, step),
        open_data=lambda: data,
        folder=folder,
        run=run.folder.path if isinstance(run, TrainRun) else None,
    )


def write_title(run: TrainParts | TrainRun, step: int) -> str:
    """One line for figures: job, choices and step."""
    choices = label_choices(run.config, count_parameters(run.task.net))
    chosen = " ".join(f"{name}={choices[name]}" for name in ("size", "rope", "smooth") if name in choices)
    return f"{run.config.cfg.job}: {chosen} at step {step:,}"


def run_evals(run: TrainRun) -> EndResults:
    """Measure every eval of the run into evals/<step>/<key>; one that fails is logged, and the next one is measured."""
    results = EndResults()
    for key, evaluation in run.evals.items():
        try:
            results.measured[key] = evaluation, measure_one(run, key, evaluation)
        except Exception as error:  # whatever an eval of any package raises: the trained run must not be lost for it
            results.failed[key] = str(error) or type(error).__name__
            unexpected = None if isinstance(error, AptlabError) else error
            log.error("evals.%s failed: %s", key, results.failed[key], exc_info=unexpected)
    return results


def measure_one(run: TrainRun, key: str, evaluation: Eval) -> Measurement:
    """One eval in a folder of its own."""
    step = run.trainer.global_step
    path = run.folder / "evals" / Path(format_checkpoint_name(step)).stem / key
    path.mkdir(parents=True, exist_ok=True)
    folder = EvalFolder(path, {"run": str(run.folder), "step": step, "weights": find_weights_hash(run)})
    context = make_eval_context(run, run.trainer.precision, folder=folder, step=step)
    return measure_eval(evaluation, context, {"run": str(run.folder), "step": step})


def find_weights_hash(run: TrainRun) -> str | None:
    """SHA-256 of these weights' checkpoint, so that no journal of other weights is gone on with; None: unknown."""
    for saver in find_callbacks(run.trainer, Checkpoints):
        if saver.last is not None and saver.last.name == format_checkpoint_name(run.trainer.global_step):
            return read_manifest(saver.last).sha256
    return None
