"""The command line: argv -> one command. Nothing but the chosen command is imported.

A command is a module with `run(args) -> int | None`; the table holds its name as a string. What the user
caused is told in one message without a traceback; the environment variable APTLAB_DEBUG=1 shows it.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys

from aptlab.cli.table import SWEEP, Command, find_command
from aptlab.errors import AptlabError, ConfigError
from aptlab.shown import print_shown

INTERRUPTED, BROKEN_PIPE = 130, 141
RARELY = (20_000, 10, 10)  # new objects between collections: composing makes many and drops few, a tenth of its time


def run_process() -> int:
    """Run the command line of a process that ends with it: what it leaves is not searched for garbage once more."""
    try:
        return main()
    finally:
        gc.disable()


def main(argv: list[str] | None = None) -> int:
    """Run one command line (sys.argv when None, which stays as it is) and return its exit code."""
    args = list(sys.argv[1:] if argv is None else argv)
    often = gc.get_threshold()
    gc.set_threshold(*RARELY)
    try:
        code = dispatch_command(args)
        sys.stdout.flush()
        return code or 0
    except AptlabError as error:
        if os.environ.get("APTLAB_DEBUG") == "1":
            raise
        return report_error(error, args)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader went away, as in `aptlab ls | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    finally:
        gc.set_threshold(*often)


def dispatch_command(args: list[str]) -> int | None:
    """Choose what to run; errors pass."""
    name, rest = (args[0], args[1:]) if args else ("--help", [])
    if name in ("-h", "--help", "help"):
        from aptlab.cli.help import render_overview

        print_shown(render_overview())
        return 0
    if name in ("-V", "--version", "version"):
        from aptlab.version import __version__

        print_shown(f"aptlab {__version__}")
        return 0
    if name == "__complete":
        from aptlab.cli.complete import list_completions

        print_shown("\n".join(list_completions(rest)))
        return 0
    return _run(find_command(name), rest)


def _run(command: Command, args: list[str]) -> int | None:
    if any(arg in ("-h", "--help") for arg in args):
        from aptlab.cli.help import render_command_help

        print_shown(render_command_help(command))
        return 0
    from aptlab.cli.hydra_words import find_hydra_problem

    if (command.config or command.name == "check") and (problem := find_hydra_problem(args)):
        raise ConfigError(problem)
    if command.config and "--cfg" in args:
        from aptlab.cli.help import render_resolved_yaml

        print_shown(render_resolved_yaml(command, [arg for arg in args if arg != "--cfg"]), end="")
        return 0
    target = command.target
    if command.name == "train" and any(arg in ("-m", "--multirun") for arg in args):
        target, args = SWEEP, [arg for arg in args if arg not in ("-m", "--multirun")]
    elif command.config and (flags := [arg for arg in args if arg.startswith("-")]):
        sweep = ", -m" if command.name == "train" else ""
        raise ConfigError(
            f"aptlab {command.name}: there is no flag {flags[0]}; allowed: --help, --cfg{sweep}, key=value"
        )
    module, _, function = target.partition(":")
    return getattr(importlib.import_module(module), function)(args)


def report_error(error: AptlabError, args: list[str]) -> int:
    """Print one message, the key that is wrong in front and secrets hidden; returns the exit code."""
    from aptlab.config import locate_error
    from aptlab.redact import redact_overrides, redact_text

    redact_overrides(args)  # a secret that could not be parsed is one all the same
    if str(error):  # a rank other than zero leaves without a word
        print_shown(redact_text(str(locate_error(error))), file=sys.stderr)
    return error.exit_code
