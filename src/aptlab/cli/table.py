"""Every command: its name, the function that runs it, and one line about it."""

from __future__ import annotations

from dataclasses import dataclass

from aptlab.errors import ConfigError, suggest_option
from aptlab.extensions import list_extension_commands


@dataclass(frozen=True)
class Command:
    """`target` is "module:function"; `config` says whether its arguments are overrides of conf/<name>.yaml.

    shown  "module:function" for `--cfg`, where a checkpoint has a say in the configuration: arguments -> plain values
    """

    name: str
    target: str
    about: str
    config: bool = False
    shown: str | None = None


SWEEP = "aptlab.commands.sweep:run"


def _of_checkpoint(name: str, about: str) -> Command:
    """A command whose module has `run`, and `resolve_config` for what it takes from a checkpoint."""
    module = f"aptlab.commands.{name}"
    return Command(name, f"{module}:run", about, config=True, shown=f"{module}:resolve_config")


_ALL = (
    _of_checkpoint("train", "train a model and measure it; -m sweeps over key=a,b"),
    _of_checkpoint("eval", "measure a checkpoint: loss by length, passkey, RULER"),
    _of_checkpoint("search", "search LongRoPE factors for a longer context"),
    Command("generate", "aptlab.commands.generate:run", "continue a text", config=True),
    Command("compare", "aptlab.commands.compare:run", "put finished runs into one table"),
    Command("bench", "aptlab.commands.bench:run", "bench stability: many small trainings under stress, in one table"),
    Command("plot", "aptlab.commands.plot:run", "draw what position rules do: aptlab plot rope=ntk,yarn", config=True),
    Command("export", "aptlab.commands.export:run", "write a checkpoint as a Hugging Face model", config=True),
    Command("import", "aptlab.commands.import_:run", "read a Hugging Face model into a checkpoint", config=True),
    Command("ls", "aptlab.commands.ls:run", "list groups, or the options of one: aptlab ls rope"),
    Command("show", "aptlab.commands.show:run", "explain an option or a checkpoint: aptlab show rope=yarn"),
    Command("check", "aptlab.commands.check:run", "check a configuration without running it"),
    Command("cp", "aptlab.commands.cp:run", "copy an option into ./conf to change it: aptlab cp rope/yarn"),
    Command("completion", "aptlab.commands.completion:run", "print the completion script for bash, zsh or fish"),
)
COMMANDS = {command.name: command for command in _ALL}


def list_commands() -> dict[str, Command]:
    """Ours, then those of installed packages; ConfigError where one of these has a name that is taken."""
    added = {}
    for name, entry in list_extension_commands().items():
        if name in COMMANDS:
            raise ConfigError(
                f"the command {name} of {entry.value} has the name of one of aptlab's; rename its entry point, or "
                "uninstall the package"
            )
        added[name] = Command(name, entry.value, _first_line(entry.module), config=_has_config(name))
    return COMMANDS | added


def find_command(name: str) -> Command:
    """The command of this name; packages are looked at only where it is none of ours."""
    if name in COMMANDS:
        return COMMANDS[name]
    known = list_commands()
    if name not in known:
        raise ConfigError(f"{name}: no such command{suggest_option(name, known)}")
    return known[name]


def _first_line(module: str) -> str:
    """What a command's module says of it first, read from its source."""
    from aptlab.config import read_module_docstring

    return (read_module_docstring(module) or "").partition("\n")[0].rstrip(".")


def _has_config(name: str) -> bool:
    from aptlab.config.search_path import read_option_index

    return name in read_option_index().primaries
