"""Every command: its name, the function that runs it, and one line about it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """`target` is "module:function"; `config` says whether its arguments are overrides of conf/<name>.yaml."""

    name: str
    target: str
    about: str
    config: bool = False


SWEEP = "aptlab.commands.sweep:run"

_ALL = (
    Command("train", "aptlab.commands.train:run", "train a model and measure it; -m sweeps over key=a,b", config=True),
    Command("eval", "aptlab.commands.eval:run", "measure a checkpoint: loss by length, passkey, RULER", config=True),
    Command("search", "aptlab.commands.search:run", "search LongRoPE factors for a longer context", config=True),
    Command("generate", "aptlab.commands.generate:run", "continue a text", config=True),
    Command("compare", "aptlab.commands.compare:run", "put finished runs into one table"),
    Command("plot", "aptlab.commands.plot:run", "draw what position rules do: aptlab plot rope=ntk,yarn", config=True),
    Command("export", "aptlab.commands.export:run", "write a checkpoint as a Hugging Face model", config=True),
    Command("import", "aptlab.commands.import_:run", "read a Hugging Face model into a checkpoint", config=True),
    Command("ls", "aptlab.commands.ls:run", "list groups, or the options of one: aptlab ls rope"),
    Command("show", "aptlab.commands.show:run", "explain an option: aptlab show rope=yarn"),
    Command("check", "aptlab.commands.check:run", "check a configuration without running it"),
    Command("cp", "aptlab.commands.cp:run", "copy an option into ./conf to change it: aptlab cp rope/yarn"),
    Command("completion", "aptlab.commands.completion:run", "print the completion script for bash, zsh or fish"),
)
COMMANDS = {command.name: command for command in _ALL}
