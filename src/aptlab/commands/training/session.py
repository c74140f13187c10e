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

from aptlab.checkpoint import AtomicIO, load_checkpoint, read_manifest
from aptlab.commands.training.plan import Plan
from aptlab.commands.training.report import announce, finish
from aptlab.config import Config, build, redact, redact_overrides
from aptlab.device import Device, resolve_precision
from aptlab.errors import CheckpointError, ConfigError
from aptlab.loggers import CSVMetrics, WandbRun
from aptlab.runs import RunFolder, RunLog
from aptlab.tasks import LanguageTask

log = logging.getLogger("aptlab")
SIGTERM_CODE = 143


@dataclass
class Session:
    """A run in progress: its configuration (`vocab` filled in), its hash as composed, and everything built from it."""

    config: Config
    config_hash: str
    folder: RunFolder
    data: Any
    task: LanguageTask
    trainer: Trainer
    device: Device
    loggers: list[Logger]


def train(plan: Plan) -> int:
    """Train as planned; returns the exit code. Only rank zero writes and reports."""
    config = plan.config
    folder = RunFolder.create(root=config.cfg.paths.root, job=config.cfg.job, run_dir=config.cfg.run_dir)
    with folder, RunLog.start(folder.path if folder.writer else None, console=folder.writer):
        if plan.ckpt:
            os.environ["APTLAB_CKPT"] = str(plan.ckpt)  # ranks must not look for "the last one" again
        session = prepare(plan, folder)
        with closing(session.loggers):
            announce(session, plan.notes)
            begun = time.perf_counter()
            session.trainer.fit(session.task, datamodule=session.data, ckpt_path=plan.ckpt if plan.resume else None)
            finish(session, wall=time.perf_counter() - begun)
    return 0


@contextlib.contextmanager
def closing(loggers: list[Logger]) -> Iterator[None]:
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


def prepare(plan: Plan, folder: RunFolder) -> Session:
    config = plan.config
    torch.manual_seed(config.cfg.seed)
    device: Device = build(config.cfg.device)
    args = device.trainer_args()
    precision = resolve_precision(config.cfg.precision, args["accelerator"])
    data = build(config.cfg.data)
    data.prepare_data()
    config = with_vocabulary(config, data.vocab_size)
    torch.manual_seed(config.cfg.seed)
    task: LanguageTask = build(config.cfg.task)
    task.bytes_per_token = data.bytes_per_token
    if plan.ckpt and not plan.resume:
        load_weights(task, plan.ckpt)
    if plan.resume:
        folder.reopen()
    folder.write_start(
        config=config.resolved(), overrides=config.overrides, choices=config.choices, seed=config.cfg.seed
    )
    loggers = make_loggers(config, folder, plan)
    callbacks = make_callbacks(config, plan.config.hash(), folder, data, loggers)
    trainer = build(config.cfg.trainer)(
        **args,
        **lengths_of(config, data, args),
        precision=precision,
        logger=loggers,
        callbacks=callbacks,
        plugins=[AtomicIO()],
        default_root_dir=str(folder),
        enable_progress_bar=False,
        enable_model_summary=False,
        check_val_every_n_epoch=None,
        use_distributed_sampler=False,
    )
    return Session(config, plan.config.hash(), folder, data, task, trainer, device, loggers)


def with_vocabulary(config: Config, have: int) -> Config:
    """The configuration with `vocab` filled in: what the tokenizer has, or more where the user pads it."""
    wanted = config.cfg.vocab
    if wanted is not None and wanted < have:
        raise ConfigError(f"vocab={wanted} is smaller than the tokenizer's {have}; use vocab=null or at least {have}")
    cfg = config.cfg.copy()
    cfg.vocab = wanted or have
    return dataclasses.replace(config, cfg=cfg)


def lengths_of(config: Config, data: LightningDataModule, args: dict[str, Any]) -> dict[str, Any]:
    """Trainer arguments that count batches: our config counts optimizer steps, and the loader has no end.

    `trainer.max_epochs` becomes the steps that this many passes over the data take.
    """
    trainer = config.cfg.trainer
    accumulate = trainer.get("accumulate_grad_batches") or 1
    lengths: dict[str, Any] = {}
    interval = trainer.get("val_check_interval")
    if interval is not None:
        if interval != int(interval) or interval < 1:
            raise ConfigError(
                f"trainer.val_check_interval={interval} counts optimizer steps here; use a whole number of 1 or more"
            )
        lengths["val_check_interval"] = int(interval) * accumulate
    epochs, steps = trainer.get("max_epochs"), trainer.get("max_steps", -1)
    if epochs is not None:
        world = args.get("num_nodes", 1) * args["devices"]
        per_epoch = data.batches_per_epoch(world) // accumulate  # type: ignore[attr-defined]
        lengths["max_epochs"] = -1
        lengths["max_steps"] = min(epochs * per_epoch, steps) if steps > 0 else epochs * per_epoch
    else:
        lengths["max_epochs"] = -1
    return lengths


def make_loggers(config: Config, folder: RunFolder, plan: Plan) -> list[Logger]:
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
            "config": redact(config.resolved()),
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


def load_weights(task: LanguageTask, path: Path) -> None:
    state = load_checkpoint(path)["state_dict"]
    own = task.state_dict()
    wrong = [
        f"{name} {tuple(state[name].shape)} -> {tuple(own[name].shape)}" for name in own if misfit(name, own, state)
    ]
    if wrong or set(state) ^ set(own):
        names = wrong or sorted(set(state) ^ set(own))
        raise CheckpointError(
            f"the weights of {path} do not fit this model: {', '.join(names[:4])}{' …' if len(names) > 4 else ''}; "
            "keep size, vocabulary and layers as they were trained"
        )
    task.load_state_dict(state)


def misfit(name: str, own: dict[str, Any], state: dict[str, Any]) -> bool:
    return name in state and own[name].shape != state[name].shape
