"""Prompts out of a file. No torch."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from aptlab.data.sources.readers import read_json
from aptlab.errors import DataError
from aptlab.sample.texts import Prompt, make_prompts


def read_prompts(prompt: str | None, prompts_file: str | None, *, chat: bool = False) -> tuple[Prompt, ...]:
    """The prompts of a request: those of its file, the text of stdin for `-`, else the text itself.

    `chat`: a text is what a user says. DataError for a file that holds none.
    """
    if prompts_file is not None:
        return tuple(make_prompts(read_prompt_file(Path(prompts_file).expanduser()), chat=chat))
    text = sys.stdin.read().removesuffix("\n") if prompt == "-" else prompt or ""
    return tuple(make_prompts(text, chat=chat))


def read_prompt_file(path: Path) -> tuple[str | list[Any], ...]:
    """Prompts of a .jsonl (field `prompt`, or `messages`) or of another text file (one per line), without blank lines.

    Raises DataError naming the file, and the line that is none.
    """
    try:
        # Not splitlines(), which also cuts at form feeds, U+0085 and U+2028: these are text. \r\n was read as \n.
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise DataError(f"prompts_file={path} cannot be read: {reason}; give a .txt or .jsonl file") from error
    numbered = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    if not numbered:
        raise DataError(f"prompts_file={path} holds no prompt; write one per line")
    if path.suffix != ".jsonl":
        return tuple(line for _, line in numbered)
    return tuple(parse_prompt_line(line, f"{path}:{number}") for number, line in numbered)


def parse_prompt_line(line: str, where: str) -> str | list[Any]:
    """The field `prompt`, or the field `messages`, of one JSON object; `where` is named in errors."""
    try:
        row = read_json(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is not JSON: {error}") from error
    found = (row.get("prompt"), row.get("messages")) if isinstance(row, dict) else (None, None)
    if isinstance(found[0], str):
        return found[0]
    if isinstance(found[1], list):
        return found[1]
    raise DataError(
        f'{where} has no text under "prompt"; write {{"prompt": "…"}}, or '
        '{"messages": [{"role": "user", "content": "…"}]} for a chat model'
    )
