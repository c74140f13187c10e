"""Check a configuration without running anything: names, options, types, limits, what rules demand, files and data.

aptlab check rope=yarn size.heads=8        checks what `aptlab train` would run
aptlab check eval ckpt=last                checks another command's configuration
"""

from __future__ import annotations

import importlib

from aptlab.config import Config, check, compose, inspect_inputs
from aptlab.config.requests import find_request_reader
from aptlab.config.search_path import read_option_index
from aptlab.report.table import format_columns
from aptlab.restore.request import SOURCE, fill_source
from aptlab.shown import print_shown
from aptlab.training.labels import list_position_notes
from aptlab.training.plan import plan_training, read_root_value
from aptlab.training.text_size import inspect_training


def run(args: list[str]) -> int:
    """Print `ok` and the choices; a ConfigError lists every problem, a DataError what is not there."""
    named = bool(args) and args[0] in read_option_index().primaries
    command, overrides = (args[0], args[1:]) if named else ("train", args)
    config = check_command(command, overrides)
    print_shown(f"ok: aptlab {command} {' '.join(overrides)}".rstrip())
    print_shown("".join(f"{line}\n" for line in list_position_notes(config)), end="")
    rows = [(group, str(option)) for group, option in sorted(config.choices.items()) if option is not None]
    print_shown(format_columns(rows, indent="  "))
    print_shown(f"  config {config.hash()}")
    return 0


def check_command(command: str, overrides: list[str]) -> Config:
    """The checked configuration, with the checkpoint, files and packages that it names looked for; no torch."""
    if command == "train":
        config = plan_training(overrides).config
        inspect_training(config)
        return config
    if reader := find_request_reader(command):
        module, _, name = reader.partition(":")
        config = getattr(importlib.import_module(module), name)(overrides).config
        config = config.replaced(fill_source(config, SOURCE))
    else:
        config = compose(command, overrides)
        check(config)
        inspect_inputs(config)
    if (ckpt := read_root_value(overrides, "ckpt")) is not None:
        from aptlab.checkpoint import choose_checkpoint

        choose_checkpoint(ckpt, root=config.cfg.paths.root)
    return config
