"""What a run says at its start, and what it measures and writes at its end."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch

from aptlab.callbacks.progress import find_monitor
from aptlab.evals import evaluate_lengths
from aptlab.loggers import WandbRun
from aptlab.models.cost import ModelCost, count_part_parameters, estimate_cost
from aptlab.report.figure import draw_run_figure
from aptlab.report.table import format_length_table
from aptlab.runs import Result
from aptlab.runs.progress import format_duration
from aptlab.sample import SamplingRules, generate_tokens

if TYPE_CHECKING:
    from aptlab.training.assemble import TrainRun

log = logging.getLogger("aptlab")
SAMPLE_TOKENS = 200


def announce_run(session: TrainRun, notes: tuple[str, ...]) -> None:
    """Folder, choices, data and model, before the first step."""
    if not session.folder.writer:
        return
    config, data = session.config, session.data.summary()
    for note in notes:
        print(note)
    print(f"run      {session.folder}")
    print(
        f"parts    {'  '.join(f'{group}={option}' for group, option in select_shown_choices(config.choices).items())}"
    )
    documents = data["train_documents"] + data["val_documents"]
    print(
        f"data     {data['name']}: {documents:,} documents, {data['train_tokens']:,} tokens to train on, "
        f"{data['val_tokens']:,} to validate"
    )
    print(format_model_summary(session, estimate_cost(session.task.net, config.cfg.context)), flush=True)


def select_shown_choices(choices: dict[str, str]) -> dict[str, str]:
    order = (
        "size",
        "rope",
        "bias",
        "embed",
        "smooth",
        "attention",
        "ffn",
        "norm",
        "tokenizer",
        "optim",
        "schedule",
        "device",
    )
    quiet = ("bias", "embed")  # named only where they are used
    return {group: choices[group] for group in order if choices.get(group, "none") != "none" or group not in quiet}


def format_model_summary(session: TrainRun, price: ModelCost) -> str:
    """A summary table: parameters of each part, FLOPs of a token, and the work of the whole run."""
    net, trainer, config = session.task.net, session.trainer, session.config.cfg
    rows = [f"model    {price.parameters:,} parameters, {price.training / 1e6:,.1f} MFLOPs per token to train"]
    rows += [f"         {name:<28}{size:>14,}" for name, size in count_part_parameters(net)]
    tokens = trainer.max_steps * trainer.accumulate_grad_batches * config.data.batch * config.context
    tokens *= trainer.world_size
    rows.append(
        f"budget   {trainer.max_steps:,} steps x {tokens // max(1, trainer.max_steps):,} tokens = {tokens:,} tokens, "
        f"{tokens * price.training / 1e12:,.1f} TFLOPs, {trainer.precision} on {trainer.world_size} "
        f"{trainer.strategy.root_device.type}"
    )
    return "\n".join(rows)


def finish_run(session: TrainRun, wall: float) -> None:
    """Length table, figure, sample and result.json; rank zero only."""
    if not session.trainer.is_global_zero:
        return
    monitor = find_monitor(session.trainer)
    print(f"trained to step {session.trainer.global_step} in {format_duration(wall)}; measuring lengths …", flush=True)
    net = session.task.net.to(session.device.torch_device).eval()
    lengths = measure_lengths(session, net)
    context = session.config.cfg.context
    print(format_length_table(lengths, context))
    text = sample_text(session, net)
    session.folder.write_text("sample.txt", text + "\n")
    print(f"\nsample\n{indent_lines(text)}\n")
    for logger in session.loggers:
        logger.save()
    result = make_result(session, monitor.latest, lengths)
    figure = draw_training_figure(session, lengths)
    for logger in session.loggers:
        if isinstance(logger, WandbRun):
            logger.log_result(result.plain())
            logger.log_figure(figure)
    session.folder.write_result(result)
    print(f"figure   {figure}\nrun      {session.folder}")


def measure_lengths(session: TrainRun, net: Any) -> list[dict[str, Any]]:
    return evaluate_lengths(
        net,
        session.windows,
        device=session.device.torch_device,
        precision=session.trainer.precision,
    )


def draw_training_figure(session: TrainRun, lengths: list[dict[str, Any]]) -> Any:
    from aptlab.runs import find_runs

    metrics = find_runs([session.folder.path])[0].metrics()
    choices = session.config.choices
    title = f"{session.config.cfg.job}: size={choices['size']} rope={choices['rope']} smooth={choices['smooth']}"
    path = session.folder / "figure.png"
    return draw_run_figure(metrics, lengths, title=title, path=path, context=session.config.cfg.context)


def sample_text(session: TrainRun, net: Any) -> str:
    """A short continuation of the end-of-text token, with a fixed seed."""
    tokenizer = session.data.tokenizer
    rules = SamplingRules(temperature=0.8, top_p=0.95)
    with torch.inference_mode():
        rows = generate_tokens(
            net,
            [[tokenizer.eos]],
            rules=rules,
            max_new_tokens=min(SAMPLE_TOKENS, session.config.cfg.context - 1),
            eos=tokenizer.eos,
            seed=session.config.cfg.seed,
        )
    return tokenizer.decode(rows[0])


def indent_lines(text: str) -> str:
    return "\n".join(f"  | {line}" for line in text.splitlines())


def make_result(session: TrainRun, latest: dict[str, float], lengths: list[dict[str, Any]]) -> Result:
    config, trainer, monitor = session.config, session.trainer, find_monitor(session.trainer)
    price = estimate_cost(session.task.net, config.cfg.context)
    data = session.data.summary()
    tokens = monitor.tokens * trainer.world_size
    return Result(
        job=config.cfg.job,
        seed=config.cfg.seed,
        choices=dict(config.choices),
        overrides=list(config.overrides),
        config_hash=session.config_hash,
        steps=trainer.global_step,
        tokens=tokens,
        seconds=monitor.seconds,
        tokens_per_second=tokens / max(monitor.seconds, 1e-9),
        parameters=price.parameters,
        flops_per_token=price.training,
        context=config.cfg.context,
        skipped_steps=int(latest.get("skipped_steps", 0)),
        data={name: data[name] for name in ("name", "fingerprint", "train_tokens", "val_tokens")},
        metrics={name: latest.get(name) for name in ("val/loss", "val/ppl", "val/bpb", "train/loss")},
        lengths=lengths,
    )
