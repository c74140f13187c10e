"""`aptlab bench stability -m smooth=none,left_spin [bench.stress=rate,branch bench.seeds=5 …]`: what breaks, and when.

Every combination of the overrides is a method. Its rate is tuned first (bench.tune, multiples of optim.lr), then it is
trained at bench.rates times that rate, under every stress and in every precision. Values, with their defaults:

  bench.stress=rate         rate, branch, embedding, gradient, data, no_warmup, beta2
  bench.precisions=fp32     fp32, bf16, fp16 (with a loss scaler; a GPU alone)
  bench.rates=1,3,10,30,100 bench.tune=0.3,1,3 bench.seeds=3
  bench.seconds=null        no further training begins after these; the same command goes on
  bench.out=outputs/bench/stability

A training is of size=debug context=64 data.batch=8 trainer.max_steps=100, unless the overrides say otherwise. It is one
process; trials are kept as they come, and further methods with the same bench.out come into the same tables.
"""

from __future__ import annotations

import logging

from aptlab.config.sweeps import expand_grid, split_arguments
from aptlab.errors import ConfigError, suggest_option
from aptlab.shown import print_drawn
from aptlab.stability.settings import PRECISIONS, SMALL, StabilitySettings, Trial

KINDS = ("stability",)
OWN = ("seed", "optim.lr", "precision", "run_dir", "ckpt")


def run(args: list[str]) -> int:
    """Check every method without torch, then train what is left, and print the tables; returns 0."""
    methods, settings = read_bench_request(args)
    from aptlab.stability.runner import run_stability
    from aptlab.stability.trial import run_trial

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    print_drawn("\n".join(run_stability(methods, settings, run_trial)))
    return 0


def read_bench_request(args: list[str]) -> tuple[list[tuple[str, ...]], StabilitySettings]:
    """Methods and settings of a command line. ConfigError with the first thing that is wrong."""
    words = [arg for arg in args if arg not in ("-m", "--multirun")]
    kind, rest = (words[0], words[1:]) if words else ("", [])
    if kind not in KINDS:
        raise ConfigError(f"aptlab bench {kind}: no such bench{suggest_option(kind, KINDS)}")
    own, overrides = split_arguments(rest, ("bench",))
    settings = StabilitySettings.from_words(own)
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0]
        if key in OWN:
            raise ConfigError(f"{key}: bench sets it in every trial; see bench.seeds, bench.tune, bench.precisions")
    methods = [tuple(method) for method in expand_grid(overrides)]
    check_methods(methods, settings)
    return methods, settings


def check_methods(methods: list[tuple[str, ...]], settings: StabilitySettings) -> None:
    """ConfigError for a method, a stress or a precision that a training would refuse, before any begins."""
    from aptlab.training.plan import plan_training

    for method in methods:
        for stress in settings.stress:
            trial = Trial(method=method, stress=stress, precision="fp32", multiple=1.0, seed=0)
            plan_training(trial.list_words(1e-3))
    if "fp16" in settings.precisions:
        from aptlab.config import build, compose
        from aptlab.device import resolve_precision

        for method in methods:
            device = build(compose("train", [*SMALL, *method]).cfg.device)
            resolve_precision(PRECISIONS["fp16"], device.trainer_args()["accelerator"])
