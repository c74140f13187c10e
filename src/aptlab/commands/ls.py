"""List configuration groups, or the options of one group.

aptlab ls          every group with its options
aptlab ls rope     the options of rope, what each is, and where it comes from if it is not shipped
"""

from __future__ import annotations

from aptlab.config.search_path import SHIPPED, Option, read_option_index
from aptlab.errors import ConfigError, suggest_option
from aptlab.report.table import format_columns
from aptlab.runs.commands import find_run_hint
from aptlab.shown import print_shown


def run(args: list[str]) -> int:
    """Print the table; ConfigError for a group that is not there."""
    found = read_option_index()
    if len(args) > 1:
        raise ConfigError(f"aptlab ls takes one group, got {' '.join(args)}")
    if not args:
        print_shown(format_columns([(group, " ".join(found.groups[group])) for group in sorted(found.groups)]))
        return 0
    group = args[0].rstrip("=/")
    if group not in found.groups:
        if hint := find_run_hint(args[0]):
            raise ConfigError(hint)
        raise ConfigError(f"there is no config group {group}{suggest_option(group, found.groups)}")
    options = sorted(found.groups[group].values(), key=lambda option: option.name)
    print_shown(format_columns([(option.name, option.comment(), _origin(option)) for option in options]))
    return 0


def _origin(option: Option) -> str:
    return "" if option.place.name == SHIPPED else option.place.name
