"""`aptlab generate`: continue prompts with a trained model. torch is imported once the request holds."""

from __future__ import annotations

import os
import sys

from aptlab.commands.generating.request import read


def run(args: list[str]) -> int:
    """Exit code 0; 130 when interrupted, after the text so far. A reader that closes the pipe ends it quietly."""
    request = read(args)
    from aptlab.commands.generating.session import write

    try:
        interrupted = write(request)
        sys.stdout.flush()
    except BrokenPipeError:
        close_stdout()
        return 0
    return 130 if interrupted else 0


def close_stdout() -> None:
    """Let the interpreter's last flush go nowhere, so that it does not complain about the closed pipe."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
