"""From a plan to a run: device, data, task and every check of them, then folder files, loggers, callbacks, trainer."""

from __future__ import annotations

import dataclasses
import itertools
import logging
from collections.abc import Sized
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback

from aptlab.callbacks import RunAware, RunContext
from aptlab.checkpoint import AtomicIO, load_checkpoint
from aptlab.config import Config, build, redact_overrides
from aptlab.config.option_names import get_option_name
from aptlab.data.tokenizers import restore_tokenizer
from aptlab.device import Device, resolve_precision
from aptlab.errors import ConfigError
from aptlab.faults import inject_fault
from aptlab.loggers import RunLogger
from aptlab.models.edit import measure_activation_importance, sort_hidden_units
from aptlab.models.hf import build_tokenizer_files
from aptlab.restore.hf_lengths import KEY
from aptlab.restore.outline import check_outline_size
from aptlab.restore.upgrade import upgrade_checkpoint
from aptlab.restore.vocabulary import check_same_ids, remap_vocabulary
from aptlab.restore.weights import adapt_weights, load_weights
from aptlab.runs import RunFolder
from aptlab.tasks import Task
from aptlab.tasks.base import count_parameters, find_widths
from aptlab.training.continual import check_continual
from aptlab.training.continuing import check_optimizer_state, describe_rate_change
from aptlab.training.curriculum import check_curriculum
from aptlab.training.evaluate import build_evals, check_evals
from aptlab.training.folders import keep_later_metrics
from aptlab.training.labels import label_choices
from aptlab.training.memory import advise_ordered_rows
from aptlab.training.plan import TrainPlan
from aptlab.training.protocols import TokenizedData, bind_data_steps, require_run_data
from aptlab.training.state import ResumePoint, TrainParts, TrainRun, describe_ran
from aptlab.training.trainer_keys import resolve_trainer_lengths

log = logging.getLogger("aptlab")
SCALED = "16-mixed"  # the precision with a loss scaler
SORTING = 8  # training batches whose activations say which hidden units matter


def assemble_parts(plan: TrainPlan) -> TrainParts:
    """Device, data and task, and every check that needs them. Raises ConfigError, DataError and CheckpointError."""
    config = plan.config
    inject_fault("start.build")
    torch.manual_seed(config.cfg.seed)
    device: Device = build(config.cfg.device)
    trainer_args = device.trainer_args()
    trainer_args["precision"] = resolve_precision(config.cfg.precision, trainer_args["accelerator"])
    saved = upgrade_checkpoint(load_checkpoint(plan.ckpt)) if plan.ckpt else None
    data = require_run_data(build(config.cfg.data, **reuse_tokenizer(config, saved)))
    data.prepare_data()
    config = fill_vocabulary(config, data)
    ranks = trainer_args.get("num_nodes", 1) * trainer_args["devices"]
    batches = data.batches_per_epoch(ranks)
    trainer_args |= resolve_trainer_lengths(config.resolved(), batches_per_epoch=batches)
    accumulate = config.cfg.trainer.get("accumulate_grad_batches") or 1
    bind_data_steps(data, total=trainer_args["max_steps"], accumulate=accumulate)
    check_curriculum(config, data, ranks=ranks)
    check_validation_share(config.cfg.trainer.get("limit_val_batches"), data.val_dataloader())
    if saved is not None and plan.ckpt and not plan.remap and (node := config.resolved().get("model")):
        check_outline_size(node, saved["state_dict"], plan.ckpt)
    torch.manual_seed(config.cfg.seed)
    task: Task = build(config.cfg.task)
    for line in task.list_warnings(config.cfg.context, get_option_name):
        log.warning(line)
    task.bind_data(data)
    advise_ordered_rows(config, data)
    check_continual(config, data, task)
    resume = fill_task(task, data, plan, saved) if saved is not None else None
    if resume is not None and saved is not None:
        unscaled = trainer_args["precision"] != SCALED
        check_optimizer_state(task, saved, resume, unscaled=unscaled, device=device.torch_device)
        note = describe_rate_change(task, saved, step=resume.step, total=trainer_args["max_steps"])
        resume = dataclasses.replace(resume, notes=(note,) if note else ())
    evals, origin = build_evals(config), find_origin(plan, saved)
    imported = (saved or {}).get("aptlab", {}).get(KEY)
    parts = TrainParts(config, plan.config.hash(), device, trainer_args, data, task, evals, resume, origin, imported)
    check_evals(parts)
    return parts


def check_validation_share(limit: object, loader: object) -> None:
    """ConfigError where a share of the validation batches is not one whole batch."""
    batches = len(loader) if isinstance(loader, Sized) else None
    if isinstance(limit, float) and limit > 0 and batches is not None and int(batches * limit) < 1:
        raise ConfigError(
            f"trainer.limit_val_batches={limit} of {batches} validation batches is not one; use a larger share, a "
            "number of batches, or 0 for no validation"
        )


def fill_task(task: Task, data: Any, plan: TrainPlan, saved: dict[str, Any]) -> ResumePoint | None:
    """Put a checkpoint's weights into the task; where its run goes on, also check the data and say from where."""
    assert plan.ckpt is not None
    entry = saved["aptlab"]
    if plan.resume:
        load_weights(task, saved["state_dict"], plan.ckpt)
        data.check_state(entry)
        data.check_state(saved.get(type(data).__qualname__) or {})  # what the rows are, before the folder is touched
        return ResumePoint(plan.ckpt, entry["step"], entry.get("wandb_id"))
    weights = saved["state_dict"]
    if isinstance(data, TokenizedData) and entry.get("tokenizer"):
        if plan.remap:
            weights, line = remap_vocabulary(weights, task.state_dict(), entry["tokenizer"], data.tokenizer)
            log.info(line)
        else:
            check_same_ids(entry["tokenizer"], data.tokenizer.state())
    load_weights(task, adapt_weights(task, {**saved, "state_dict": weights}), plan.ckpt)
    if plan.sort:
        log.info(sort_task_units(task, data))
    return None


def sort_task_units(task: Task, data: Any) -> str:
    """Sort the hidden units of a nested network by their activations on the first training batches; says so.

    Every process reads the same batches. ConfigError for a network without nested layers.
    """
    net: Any = task.net
    if len(find_widths(net)) < 2:
        raise ConfigError(
            "load=importance sorts hidden units for the widths of a nested network, and this one has none; choose "
            "ffn=matformer, or use load=weights"
        )
    batches = list(itertools.islice(iter(data.train_dataloader()), SORTING))
    net.eval()  # without dropout
    importance = measure_activation_importance(net, lambda: [task(batch) for batch in batches])
    sort_hidden_units(net.train(), importance)
    units = sum(batch["tokens"].numel() for batch in batches)
    return f"hidden units sorted by their activations on {units:,} training tokens: the network computes what it did"


def find_origin(plan: TrainPlan, saved: dict[str, Any] | None) -> dict[str, Any]:
    """The checkpoint whose weights the run began with, which a run that goes on has from its own checkpoint."""
    if saved is None:
        return {}
    entry = saved["aptlab"]
    return dict(entry.get("origin") or {}) if plan.resume else {"checkpoint": str(plan.ckpt), "step": entry["step"]}


def open_run(parts: TrainParts, folder: RunFolder) -> TrainRun:
    """Loggers, callbacks and trainer of a run, and the files that open its folder."""
    config, data = parts.config, parts.data
    if parts.resume:
        if folder.writer:
            keep_later_metrics(folder.path, parts.resume.step)
        folder.reopen()
    loggers = make_loggers(config, folder, parts.resume)
    trainer = build(config.cfg.trainer)(
        **parts.trainer_args,
        logger=loggers,
        callbacks=make_callbacks(parts, folder, loggers),
        plugins=[AtomicIO()],
        default_root_dir=str(folder),
        enable_progress_bar=False,
        enable_model_summary=False,
        check_val_every_n_epoch=None,
        min_epochs=0,  # Lightning 2.6 sets 1 where there is trainer.min_steps, and the one epoch here has no end
        use_distributed_sampler=False,
    )
    folder.write_start(
        config={**config.public(), "ran": describe_ran(trainer)},
        overrides=config.overrides,
        choices=label_choices(config, count_parameters(parts.task.net)),
        seed=config.cfg.seed,
    )
    if isinstance(data, TokenizedData):
        files = build_tokenizer_files(data.tokenizer.state(), longest=0)
        folder.write_text("tokenizer.json", files["tokenizer.json"])
    task, device, evals = parts.task, parts.device, parts.evals
    return TrainRun(config, parts.config_hash, folder, data, task, trainer, device, evals, loggers, parts.origin)


def reuse_tokenizer(config: Config, saved: dict[str, Any] | None) -> dict[str, Any]:
    """The tokenizer of the checkpoint, where the configuration asks for the same kind.

    One trained anew on other text would give other numbers to the words that the weights know.
    """
    meta = (saved or {}).get("aptlab", {})
    if not meta.get("tokenizer") or meta["config"].get("tokenizer") != config.stored()["tokenizer"]:
        return {}
    return {"tokenizer": restore_tokenizer(meta["tokenizer"])}


def fill_vocabulary(config: Config, data: object) -> Config:
    """The configuration with `vocab` filled in: what the tokenizer has, or more where the user pads it.

    Data without tokens leaves it as it is.
    """
    if not isinstance(data, TokenizedData):
        return config
    have, padded = data.vocab_size, config.cfg.vocab
    if padded is not None and padded < have:
        raise ConfigError(f"vocab={padded} is smaller than the tokenizer's {have}; use vocab=null or at least {have}")
    return config.replaced({"vocab": padded or have})


def make_loggers(config: Config, folder: RunFolder, resume: ResumePoint | None) -> list[RunLogger]:
    """The loggers of the run; metrics.csv of a resumed one is cut at the step it goes on from."""
    loggers = build(config.cfg.logger).make(
        folder, resume_id=resume.wandb_id if resume else None, config=config.public(), name=folder.name
    )
    if resume and folder.writer:
        for logger in loggers:
            logger.resume(resume.step)
    return loggers


def make_callbacks(parts: TrainParts, folder: RunFolder, loggers: list[RunLogger]) -> list[Callback]:
    """The configured callbacks, in their order, with the run attached to those that need it."""
    config, data = parts.config, parts.data
    tokenizer = data.tokenizer.state() if isinstance(data, TokenizedData) else None

    def describe() -> dict[str, Any]:
        ids = [logger.run_id for logger in loggers if logger.run_id is not None]
        return {
            "config": config.public(),
            "overrides": redact_overrides(config.overrides),
            "choices": config.choices,
            "config_hash": parts.config_hash,
            "vocab": config.cfg.vocab,
            "tokenizer": tokenizer,
            "fingerprint": parts.data.fingerprint,
            "run_dir": str(folder),
            "origin": parts.origin,
            "wandb_id": ids[0] if ids else None,
            **({} if parts.imported is None else {KEY: parts.imported}),
        }

    run = RunContext(
        folder=Path(folder),
        describe=describe,
        data=data,
        config_hash=parts.config_hash,
        replace_end=folder.replace_end,
    )
    callbacks = [build(node) for node in config.cfg.callbacks.values() if node is not None]
    for callback in callbacks:
        if isinstance(callback, RunAware):
            callback.attach(run)
    return callbacks
