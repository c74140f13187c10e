"""Commands that a message tells a person to type, quoted as a shell needs them."""

from __future__ import annotations

import os
import shlex


def write_resume_command(run: str | os.PathLike[str], *words: str) -> str:
    """`aptlab train ckpt=<run> …`, quoted where a name holds a space or a sign of the shell."""
    return shlex.join(["aptlab", "train", f"ckpt={os.fspath(run)}", *words])
