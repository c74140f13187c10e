"""`aptlab generate`: continue prompts with a trained model. torch is imported once the request holds."""

from __future__ import annotations

import os
import sys

from aptlab.commands.generate_request import read_generate_request


def run(args: list[str]) -> int:
    """Exit code 0; 130 when interrupted, after the text so far. A reader that closes the pipe ends it quietly."""
    request = read_generate_request(args)
    from aptlab.commands.generate_session import generate_texts

    try:
        interrupted = generate_texts(request)
        sys.stdout.flush()
    except BrokenPipeError:
        close_stdout()
        return 0
    return 130 if interrupted else 0


def close_stdout() -> None:
    """Let the interpreter's last flush go nowhere, so that it does not complain about the closed pipe."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
