"""Help texts, made from the command table, configuration files and docstrings; nothing is imported for them."""

from __future__ import annotations

import importlib

from aptlab.cli.table import Command, list_commands

GROUPS = "Groups and their default (aptlab ls <group>: its options; aptlab show <group>=<option>: one explained):"


def render_overview() -> str:
    """`aptlab --help`."""
    commands = list_commands()
    width = max(map(len, commands))
    return "\n".join(
        [
            "aptlab <command> [key=value …]; aptlab <command> --help says more",
            "",
            *(f"  {command.name:<{width}}  {command.about}" for command in commands.values()),
            "",
            "Example: aptlab train size=tiny rope=yarn rope.factor=8 trainer.max_steps=200",
        ]
    )


def render_command_help(command: Command) -> str:
    """`aptlab <command> --help`: groups and values of its configuration, or its module's docstring."""
    if command.config:
        return render_config_help(command.name)
    from aptlab.config import read_module_docstring

    doc = read_module_docstring(command.target.partition(":")[0])
    return f"aptlab {command.name}: {command.about}" + (f"\n\n{doc.rstrip()}" if doc else "")


def render_config_help(name: str) -> str:
    """The groups of a primary file with their default option, and its values with their comments."""
    from aptlab.config.files import read_default_slots, read_value_entries
    from aptlab.config.search_path import read_option_index

    found = read_option_index()
    primary = found.primaries[name]
    rows = []
    for group, chosen in read_default_slots(primary.path).items():
        option = found.groups.get(group, {}).get(chosen or "")
        rows.append((f"{group}={chosen or 'null'}", option.comment() if option else ""))
    values = [(f"{entry.key}={entry.value or 'null'}", entry.comment) for entry in read_value_entries(primary.path)]
    sweeps = "; -m sweeps over key=a,b" if name == "train" else ""
    width = max(len(left) for left, _ in rows + values)
    return "\n".join(
        [
            f"aptlab {name} {'[group=option …] ' if rows else ''}[key=value …]",
            primary.comment(),
            *(["", GROUPS] if rows else []),
            *(f"  {left:<{width}}  {right}".rstrip() for left, right in rows),
            "",
            "Values:",
            *(f"  {left:<{width}}  {right}".rstrip() for left, right in values),
            "",
            f"aptlab {name} --cfg prints the configuration and stops{sweeps}.",
        ]
    )


def render_resolved_yaml(command: Command, overrides: list[str]) -> str:
    """The configuration that the command would run with as YAML, interpolations filled in and secrets hidden."""
    import yaml

    from aptlab.config import compose, redact_value

    if command.shown is None:
        values = compose(command.name, overrides).resolved()
    else:
        module, _, function = command.shown.partition(":")
        values = getattr(importlib.import_module(module), function)(overrides)
    return yaml.safe_dump(redact_value(values), sort_keys=False, allow_unicode=True)
