"""Every parameter of Lightning's Trainer: what a run sets itself, what cannot work here, and what does. No torch.

The training loader has no end, so all of training is one epoch of Lightning's; what begins, ends or counts an epoch
would mean something else than it says, and is refused with the way out. A test holds the three lists to the signature
of the Trainer, so that a parameter of a later Lightning is looked at before it is taken.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from aptlab.config import find_annotation_problem
from aptlab.errors import ConfigError
from aptlab.limits import WIDEST
from aptlab.shown import count_nouns

PRECISIONS = ("32-true", "bf16-mixed", "bf16-true", "16-mixed")
NOTHING = "no key at all"
VALIDATE = "validate.every=<optimizer steps>"

# What to write in place of a key: a text, or a function of its value.
OWNED: dict[str, str | Callable[[Any], str]] = {
    "accelerator": lambda value: f"device={'cuda' if value in ('gpu', 'cuda') else 'cpu'}",
    "devices": lambda value: f"device=ddp device.devices={value}",
    "num_nodes": lambda value: f"device=ddp device.nodes={value}",
    "strategy": "device=ddp, or a device option of your own",
    "precision": lambda value: f"precision={value if value in PRECISIONS else 'bf16-mixed'}",
    "logger": "logger=csv",
    "callbacks": lambda value: (
        "callbacks=[default,x], once x.yaml is in ./conf/callbacks" if value else "callbacks=null for none"
    ),
    "plugins": "precision= and device=; checkpoints are written by aptlab",
    "default_root_dir": "run_dir=<folder>, or paths.root=<folder>",
    "enable_progress_bar": "callbacks.progress=null",
    "enable_model_summary": f"{NOTHING}: every run begins with a summary of its model",
    "enable_checkpointing": "callbacks.checkpoints=null",
    "check_val_every_n_epoch": VALIDATE,
    "use_distributed_sampler": f"{NOTHING}: the loaders share out the rows themselves",
    "barebones": "callbacks=[…] without those that cost time",
    "fast_dev_run": "trainer=debug",
}


# Parameters that would not do what they say, why, and what to write in their place.
FEW_ROWS = "an epoch has no end here, so the same batches would be trained on for ever"
REFUSED = {
    "limit_train_batches": (FEW_ROWS, "trainer.max_steps=<steps> for a short run, or a short text as data.files=…"),
    "overfit_batches": (FEW_ROWS, "a short text as data.files=…, with trainer.max_epochs=<passes over it>"),
    "min_epochs": ("epochs become steps before training", "trainer.min_steps=<optimizer steps>"),
    "reload_dataloaders_every_n_epochs": ("the loader is never at its end", "no key at all"),
    "limit_test_batches": ("training tests nothing", "aptlab eval, whose eval.tokens says how much is read"),
    "limit_predict_batches": ("training predicts nothing", "aptlab generate"),
    "enable_autolog_hparams": ("the whole configuration is logged anyway", "no key at all"),
    "model_registry": ("a run is saved in its folder and nowhere else", "aptlab export"),
}
# Values, as Python writes them, that ask for what happens anyway.
HARMLESS = {"limit_train_batches": ("1.0",), "overfit_batches": ("0", "0.0"), "min_epochs": ("0",)}
HARMLESS |= {"reload_dataloaders_every_n_epochs": ("0",), "enable_autolog_hparams": ("True",)}
HARMLESS |= {"limit_test_batches": ("1.0",), "limit_predict_batches": ("1.0",)}
# Parameters that do what Lightning says of them; what tests/training/test_trainer_works.py shows of each.
WORKS = (
    *("max_epochs", "max_steps", "min_steps", "max_time", "limit_val_batches", "val_check_interval"),
    *("num_sanity_val_steps", "log_every_n_steps", "accumulate_grad_batches", "gradient_clip_val"),
    *("gradient_clip_algorithm", "deterministic", "benchmark", "inference_mode", "profiler", "detect_anomaly"),
    *("sync_batchnorm",),
)
# What numbers Lightning does not look at, or only once the run has its folder: annotation, and what else to write.
RANGES = {
    "accumulate_grad_batches": ("PositiveInt", "1 takes a step after every batch"),
    "gradient_clip_val": ("NonNegative | None", "null clips nothing"),
    "log_every_n_steps": ("PositiveInt", "logger=csv keeps what is logged in the run's folder alone"),
    "max_epochs": ("AtLeastMinusOne | None", "-1 or null count none"),
    "max_steps": ("AtLeastMinusOne", "-1 counts none, with trainer.max_epochs"),
    "min_steps": ("NonNegativeInt | None", "null asks for none"),
    "num_sanity_val_steps": ("AtLeastMinusOne | None", "use 0 for none, -1 for all, or a number of them"),
    "benchmark": ("bool | None", "null leaves it to torch"),
    "profiler": ("Literal['simple', 'advanced', 'pytorch', 'xla'] | None", "null measures nothing"),
}


def find_trainer_problems(cfg: Mapping[str, Any]) -> list[str]:
    """`key: problem` for every key of `cfg.trainer` that would not do what it says, and for a doubtful interval."""
    trainer, every = cfg.get("trainer") or {}, (cfg.get("validate") or {}).get("every")
    problems = [
        f"trainer.{key}: a run sets this itself, so {value!r} would mean nothing; use {write_way_out(key, value)}"
        for key, value in ((key, trainer.get(key)) for key in OWNED)
        if value is not None
    ]
    return [
        *problems,
        *find_refused_keys(trainer),
        *find_range_problems(trainer),
        *find_length_problems(trainer),
        *find_time_problems(trainer.get("max_time")),
        *find_every_problems(every),
        *find_limit_problems(trainer),
        *find_interval_problems(trainer, every),
    ]


def find_every_problems(every: Any) -> Iterator[str]:
    """The way out for a `validate.every` below one step, which the check of limits refuses."""
    if isinstance(every, int) and every < 1:
        yield "validate.every: validate=end measures at the end of the run alone, trainer.limit_val_batches=0 never"


def find_refused_keys(trainer: Mapping[str, Any]) -> Iterator[str]:
    """Keys that mean something else with a loader that has no end, or nothing in a training run."""
    for key, (reason, way) in REFUSED.items():
        value = trainer.get(key)
        if value is not None and repr(value) not in HARMLESS.get(key, ()):
            yield f"trainer.{key}: {value!r} would not do what it says: {reason}; use {way}"


def find_range_problems(trainer: Mapping[str, Any]) -> Iterator[str]:
    """Numbers that would train another way than anybody means, as a negative limit of the gradient trains uphill."""
    for key, (annotation, way) in RANGES.items():
        if key in trainer and (problem := find_annotation_problem(trainer[key], annotation)):
            yield f"trainer.{key}: {problem}; {way}"


def find_limit_problems(trainer: Mapping[str, Any]) -> Iterator[str]:
    """Limits that Lightning would refuse only when the run has its folder."""
    limit = trainer.get("limit_val_batches")
    if limit is not None and (
        not isinstance(limit, int | float)
        or isinstance(limit, bool)
        or not (0 <= limit <= 1 if isinstance(limit, float) else 0 <= limit <= WIDEST)
    ):
        yield (
            f"trainer.limit_val_batches: {limit!r} is neither a number of batches (1, 2, …; 0 for no validation) nor a "
            "share of them (0.0 to 1.0)"
        )
    if (clip := trainer.get("gradient_clip_algorithm")) not in (None, "norm", "value"):
        yield f"trainer.gradient_clip_algorithm: {clip!r} is no way to clip; allowed: norm, value"
    steps, least = trainer.get("max_steps"), trainer.get("min_steps")
    if isinstance(steps, int) and isinstance(least, int) and 0 < steps < least:
        yield f"trainer.min_steps={least} is more than trainer.max_steps={steps}, which ends the run; raise max_steps"


def find_length_problems(trainer: Mapping[str, Any]) -> Iterator[str]:
    """A run without an end, which has no schedule of its learning rate either, or without a step."""
    steps, epochs = trainer.get("max_steps"), trainer.get("max_epochs")
    if isinstance(epochs, int) and epochs == 0:
        yield "trainer.max_epochs=0 is no pass over the text; use 1 or more, or trainer.max_steps=<steps> alone"
    endless = not isinstance(epochs, int) or epochs < 0
    if isinstance(steps, int) and steps < 1 and endless:
        yield f"trainer.max_steps={steps}: the schedule needs an end; use 1 or more, or set trainer.max_epochs"


def find_time_problems(limit: Any) -> Iterator[str]:
    """What is wrong with `trainer.max_time`, which Lightning reads when the Trainer is made."""
    parts = list(limit.values()) if isinstance(limit, Mapping) else re.findall(r"\d+", str(limit))
    form = isinstance(limit, Mapping) or re.fullmatch(r"\d+:\d\d:\d\d:\d\d", str(limit).strip()) is not None
    numbers = [int(part) if str(part).isdigit() else 0 for part in parts]
    if limit is not None and not (form and sum(numbers) and all(str(part).isdigit() for part in parts)):
        yield (
            f"trainer.max_time: {limit!r} is no time; write DD:HH:MM:SS, as in 00:01:30:00 for an hour and a half, or "
            "null for none"
        )


def write_way_out(key: str, value: Any) -> str:
    """What to write in place of `trainer.<key>=<value>`."""
    text = OWNED[key]
    return text if isinstance(text, str) else text(value)


def find_interval_problems(trainer: Mapping[str, Any], every: Any) -> Iterator[str]:
    """What is wrong with `trainer.val_check_interval`, Lightning's training batches or share of an epoch."""
    interval, key = trainer.get("val_check_interval"), "trainer.val_check_interval"
    if interval is None:
        return
    if every is not None:
        yield (
            f"{key}: {interval} and validate.every={every} are both given; leave it out and set {VALIDATE}, or add "
            "validate.every=null"
        )
    if isinstance(interval, bool) or not isinstance(interval, int | float):
        yield f"{key}: {interval!r} is a time, which no resumed run can repeat; use {VALIDATE}"
    elif isinstance(interval, float):
        yield from find_share_problems(interval, trainer.get("max_epochs"))
    elif find_annotation_problem(trainer.get("accumulate_grad_batches", 1), "PositiveInt") is None:
        yield from find_batch_problems(interval, trainer.get("accumulate_grad_batches", 1))


def find_share_problems(share: float, epochs: Any) -> Iterator[str]:
    """What is wrong with an interval that is a share of an epoch."""
    if not 0 < share <= 1:  # not a number either
        yield (
            f"trainer.val_check_interval: {share} is no share of an epoch, which is in (0, 1]; a whole number counts "
            "training batches"
        )
    elif epochs is None or epochs < 0:
        yield (
            f"trainer.val_check_interval: {share} of an epoch, but training data has no end; set trainer.max_epochs "
            f"too, or use {VALIDATE}"
        )


def find_batch_problems(batches: int, accumulate: int) -> Iterator[str]:
    """What is wrong with an interval in training batches; a run is saved and validated between optimizer steps."""
    if batches < 1:
        yield f"trainer.val_check_interval: {batches} batches; use 1 or more, or trainer.limit_val_batches=0 for none"
    elif batches % accumulate:
        below, above = batches // accumulate * accumulate, -(-batches // accumulate) * accumulate
        near = " or ".join(str(number) for number in (below, above) if number)
        yield (
            f"trainer.val_check_interval: {count_nouns(batches, 'batch')} {'ends' if batches == 1 else 'end'} "
            "inside an optimizer step of "
            f"trainer.accumulate_grad_batches={accumulate}; use {near}, or {VALIDATE}"
        )


def resolve_trainer_lengths(cfg: Mapping[str, Any], *, batches_per_epoch: int) -> dict[str, Any]:
    """Trainer arguments that count: max_epochs -1, max_steps, val_check_interval in batches, whole optimizer steps.

    The training loader has no end, so `trainer.max_epochs` becomes the steps that this many passes take. A run that is
    shorter than the interval is validated at its end. Raises ConfigError where the run would have no end, or no step.
    """
    trainer = cfg["trainer"]
    accumulate = trainer.get("accumulate_grad_batches") or 1
    epochs, steps = trainer.get("max_epochs"), trainer.get("max_steps", -1)
    if epochs is not None and epochs >= 0:
        passes = epochs * batches_per_epoch // accumulate
        if passes < 1:
            raise ConfigError(
                f"trainer.max_epochs={epochs} is not one step: the text has "
                f"{count_nouns(batches_per_epoch, 'batch')} and trainer.accumulate_grad_batches={accumulate}; "
                "use more epochs or a smaller data.batch"
            )
        steps = min(passes, steps) if steps > 0 else passes
    if steps < 1:
        raise ConfigError(next(find_length_problems({"max_steps": steps})))
    every, interval = (cfg.get("validate") or {}).get("every"), trainer.get("val_check_interval")
    if every is not None:
        between = every
    elif interval is not None:
        batches = int(interval * batches_per_epoch) if isinstance(interval, float) else interval
        between = max(1, batches // accumulate)
    else:
        between = steps
    return {"max_epochs": -1, "max_steps": steps, "val_check_interval": min(between, steps) * accumulate}
