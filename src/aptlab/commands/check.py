"""Check a configuration without running anything: names, options, types, limits, and what rules demand.

aptlab check rope=yarn size.heads=8        checks what `aptlab train` would run
aptlab check eval ckpt=last                checks another command's configuration
"""

from __future__ import annotations

from aptlab.config import check, compose
from aptlab.config.search_path import read_option_index
from aptlab.report.table import format_columns
from aptlab.training.labels import list_position_notes
from aptlab.training.plan import check_training


def run(args: list[str]) -> int:
    """Print `ok` and the choices; a ConfigError lists every problem."""
    named = bool(args) and args[0] in read_option_index().primaries
    command, overrides = (args[0], args[1:]) if named else ("train", args)
    config = compose(command, overrides)
    (check_training if command == "train" else check)(config)
    print(f"ok: aptlab {command} {' '.join(overrides)}".rstrip())
    print("".join(f"{line}\n" for line in list_position_notes(config)), end="")
    rows = [(group, str(option)) for group, option in sorted(config.choices.items()) if option is not None]
    print(format_columns(rows, indent="  "))
    print(f"  config {config.hash()}")
    return 0
