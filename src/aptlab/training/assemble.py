"""Build every part of a run, train, and hand over to the report."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.loggers import Logger

from aptlab.callbacks.progress import find_monitor
from aptlab.checkpoint import AtomicIO, load_checkpoint, read_manifest
from aptlab.config import Config, build, redact_overrides, redact_value
from aptlab.data.rows.windows import Windows
from aptlab.data.tokenizers import restore_tokenizer
from aptlab.device import Device, resolve_precision
from aptlab.errors import ConfigError
from aptlab.evals import fit_windows
from aptlab.loggers import CSVMetrics, WandbRun
from aptlab.models.hf import build_tokenizer_files
from aptlab.nn.positions.rope import list_rope_warnings
from aptlab.restore.upgrade import upgrade_checkpoint
from aptlab.restore.weights import adapt_weights, load_weights
from aptlab.runs import RunFolder, RunLog
from aptlab.runs.ranks import get_process_rank
from aptlab.tasks import LanguageTask
from aptlab.training.finish import announce_run, finish_run
from aptlab.training.plan import TrainPlan

log = logging.getLogger("aptlab")
SIGTERM_CODE = 143
MULTIPLES = (1, 2, 4, 8)
CKPT_VARIABLE = "APTLAB_CKPT"


@dataclass
class TrainRun:
    """A run in progress: its configuration (`vocab` filled in), its hash as composed, and everything built from it."""

    config: Config
    config_hash: str
    folder: RunFolder
    data: Any
    task: LanguageTask
    trainer: Trainer
    device: Device
    loggers: list[Logger]
    windows: Windows


@dataclass
class TrainParts:
    """What is built before the run has a folder, so that a mistake found here leaves nothing behind."""

    config: Config
    device: Device
    args: dict[str, Any]
    precision: str
    lengths: dict[str, Any]
    data: Any
    windows: Windows
    task: LanguageTask


def run_training(plan: TrainPlan) -> Path:
    """Train as planned; returns the run folder. Only rank zero writes and reports."""
    cfg = plan.config.cfg
    with RunLog.start(None, console=get_process_rank() == 0):
        parts = assemble_parts(plan)
        folder = RunFolder.create(root=cfg.paths.root, job=cfg.job, run_dir=cfg.run_dir)
        with (
            folder,
            RunLog.start(folder.path if folder.writer else None, console=folder.writer),
            share_checkpoint_path(plan.ckpt),
        ):
            session = prepare_run(plan, parts, folder)
            with close_loggers(session.loggers):
                announce_run(session, plan.notes)
                begun = time.perf_counter()
                session.trainer.fit(session.task, datamodule=session.data, ckpt_path=plan.ckpt if plan.resume else None)
                validate_final_weights(session)
                finish_run(session, wall=time.perf_counter() - begun)
    return folder.path


@contextlib.contextmanager
def share_checkpoint_path(ckpt: Path | None) -> Iterator[None]:
    """Tell the ranks which checkpoint is meant: they must not look for "the last one" again."""
    if ckpt is None:
        yield
        return
    before = os.environ.get(CKPT_VARIABLE)
    os.environ[CKPT_VARIABLE] = str(ckpt)
    try:
        yield
    finally:
        os.environ.pop(CKPT_VARIABLE)
        if before is not None:
            os.environ[CKPT_VARIABLE] = before


def validate_final_weights(session: TrainRun) -> None:
    """Measure the final weights too where the last interval was not full."""
    trainer = session.trainer
    if trainer.enable_validation and find_monitor(trainer).validated != trainer.global_step:
        trainer.validate(session.task, datamodule=session.data, verbose=False)


@contextlib.contextmanager
def close_loggers(loggers: list[Logger]) -> Iterator[None]:
    """Close what tracks the run, however it ends; a preempted run is marked as one."""
    code = 1
    try:
        yield
        code = 0
    except BaseException as error:
        code = getattr(error, "exit_code", 1)
        raise
    finally:
        for logger in loggers:
            if isinstance(logger, WandbRun):
                if code == SIGTERM_CODE:
                    logger.mark_preempting()
                logger.close(code)


def assemble_parts(plan: TrainPlan) -> TrainParts:
    """Device, data and task, and every check that needs them. Raises ConfigError, DataError and CheckpointError."""
    config = plan.config
    torch.manual_seed(config.cfg.seed)
    device: Device = build(config.cfg.device)
    args = device.trainer_args()
    precision = resolve_precision(config.cfg.precision, args["accelerator"])
    saved = upgrade_checkpoint(load_checkpoint(plan.ckpt)) if plan.ckpt else None
    data = build(config.cfg.data, **reuse_tokenizer(config, saved))
    data.prepare_data()
    config = fill_vocabulary(config, data.vocab_size)
    lengths = resolve_trainer_lengths(config, data, args)
    data.val_dataloader()
    torch.manual_seed(config.cfg.seed)
    task: LanguageTask = build(config.cfg.task)
    for line in list_rope_warnings(task.net.rope, head_dim=task.net.shape.head_sizes()[2], length=config.cfg.context):
        log.warning(line)
    windows = fit_windows(data, context=config.cfg.context, multiples=MULTIPLES, longest=task.net.max_positions)
    task.bytes_per_token = data.bytes_per_token
    if saved is not None and plan.ckpt is not None:
        weights = saved["state_dict"] if plan.resume else adapt_weights(task, saved)
        load_weights(task, weights, plan.ckpt)
        if plan.resume:
            data.check_state(saved["aptlab"])
    return TrainParts(config, device, args, precision, lengths, data, windows, task)


def prepare_run(plan: TrainPlan, parts: TrainParts, folder: RunFolder) -> TrainRun:
    """Write the files that open a run, and build loggers, callbacks and trainer."""
    config, data = parts.config, parts.data
    if plan.resume:
        folder.reopen()
    folder.write_start(
        config=config.resolved(), overrides=config.overrides, choices=config.choices, seed=config.cfg.seed
    )
    folder.write_text("tokenizer.json", build_tokenizer_files(data.tokenizer.state(), longest=0)["tokenizer.json"])
    loggers = make_loggers(config, folder, plan)
    callbacks = make_callbacks(config, plan.config.hash(), folder, data, loggers)
    trainer = build(config.cfg.trainer)(
        **parts.args,
        **parts.lengths,
        precision=parts.precision,
        logger=loggers,
        callbacks=callbacks,
        plugins=[AtomicIO()],
        default_root_dir=str(folder),
        enable_progress_bar=False,
        enable_model_summary=False,
        check_val_every_n_epoch=None,
        use_distributed_sampler=False,
    )
    hashed = plan.config.hash()
    return TrainRun(config, hashed, folder, data, parts.task, trainer, parts.device, loggers, parts.windows)


def reuse_tokenizer(config: Config, saved: dict[str, Any] | None) -> dict[str, Any]:
    """The tokenizer of the checkpoint, where the configuration asks for the same kind.

    One trained anew on other text would give other numbers to the words that the weights know.
    """
    meta = (saved or {}).get("aptlab", {})
    if not meta.get("tokenizer") or meta["config"].get("tokenizer") != config.resolved()["tokenizer"]:
        return {}
    return {"tokenizer": restore_tokenizer(meta["tokenizer"])}


def fill_vocabulary(config: Config, have: int) -> Config:
    """The configuration with `vocab` filled in: what the tokenizer has, or more where the user pads it."""
    wanted = config.cfg.vocab
    if wanted is not None and wanted < have:
        raise ConfigError(f"vocab={wanted} is smaller than the tokenizer's {have}; use vocab=null or at least {have}")
    cfg = config.cfg.copy()
    cfg.vocab = wanted or have
    return dataclasses.replace(config, cfg=cfg)


def resolve_trainer_lengths(config: Config, data: LightningDataModule, args: dict[str, Any]) -> dict[str, Any]:
    """Trainer arguments that count batches: our config counts optimizer steps, and the loader has no end.

    `trainer.max_epochs` becomes the steps that this many passes over the data take.
    """
    trainer = config.cfg.trainer
    accumulate = trainer.get("accumulate_grad_batches") or 1
    lengths: dict[str, Any] = {"max_epochs": -1}
    batches = data.batches_per_epoch(args.get("num_nodes", 1) * args["devices"])  # type: ignore[attr-defined]
    epochs, steps = trainer.get("max_epochs"), trainer.get("max_steps", -1)
    if epochs is not None and epochs >= 0:
        passes = epochs * batches // accumulate
        if passes < 1:
            raise ConfigError(
                f"trainer.max_epochs={epochs} is not one step: the text has {batches} batches and "
                f"trainer.accumulate_grad_batches={accumulate}; use more epochs or a smaller data.batch"
            )
        lengths["max_steps"] = steps = min(passes, steps) if steps > 0 else passes
    if steps < 1 and not trainer.get("fast_dev_run"):
        raise ConfigError(f"trainer.max_steps={steps}: the schedule needs an end; set trainer.max_steps or max_epochs")
    interval = trainer.get("val_check_interval")
    if interval is not None:
        if interval != int(interval) or interval < 1:
            raise ConfigError(
                f"trainer.val_check_interval={interval} counts optimizer steps here; use a whole number of 1 or more"
            )
        # A run that is shorter than the interval is validated at its end.
        lengths["val_check_interval"] = min(int(interval), max(1, steps)) * accumulate
    return lengths


def make_loggers(config: Config, folder: RunFolder, plan: TrainPlan) -> list[Logger]:
    resume_id = load_checkpoint(plan.ckpt)["aptlab"].get("wandb_id") if plan.resume and plan.ckpt else None
    loggers = build(config.cfg.logger).make(folder, resume_id=resume_id, config=config.resolved(), name=folder.name)
    if plan.resume and plan.ckpt and folder.writer:
        for logger in loggers:
            if isinstance(logger, CSVMetrics):
                logger.resume(read_manifest(plan.ckpt).step)
    return loggers


def make_callbacks(
    config: Config, config_hash: str, folder: RunFolder, data: Any, loggers: list[Logger]
) -> list[Callback]:
    """The configured callbacks, in their order, told what only the command knows."""
    callbacks = [build(node) for node in config.cfg.callbacks.values() if node is not None]

    def describe() -> dict[str, Any]:
        ids = [logger.version for logger in loggers if isinstance(logger, WandbRun)]
        return {
            "config": redact_value(config.resolved()),
            "overrides": redact_overrides(config.overrides),
            "choices": config.choices,
            "config_hash": config_hash,
            "vocab": config.cfg.vocab,
            "tokenizer": data.tokenizer.state(),
            "fingerprint": data.fingerprint,
            "run_dir": str(folder),
            "wandb_id": ids[0] if ids else None,
        }

    for callback in callbacks:
        attach = getattr(callback, "attach", None)
        if attach is not None:
            attach(folder=Path(folder), describe=describe, data=data, config_hash=config_hash)
    return callbacks
