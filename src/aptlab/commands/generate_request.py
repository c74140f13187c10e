"""What a `generate` request asks for, checked without torch."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aptlab.config import Config, check, compose
from aptlab.errors import ConfigError, DataError
from aptlab.sample import SamplingRules

RAW = ("prompt", "prompts_file", "out")


@dataclass(frozen=True, kw_only=True)
class GenerateRequest:
    """A checked request: the keys of conf/generate.yaml and what they lead to."""

    config: Config
    rules: SamplingRules
    prompts: tuple[str, ...]
    stop: tuple[str, ...]
    max_new_tokens: int
    seed: int
    samples: int
    batch: int
    out: str | None
    stream: bool


def read_generate_request(args: list[str]) -> GenerateRequest:
    """The request of a command line; ConfigError lists every problem, DataError is for a prompts file that is none."""
    raw, rest = split_raw_arguments(args)
    config = compose("generate", rest)
    check(config)
    values = {**config.resolved(), **raw}
    if values["prompt"] is not None and values["prompts_file"] is not None:
        raise ConfigError("prompt and prompts_file are both given; keep one of them")
    return GenerateRequest(
        config=config,
        rules=SamplingRules(**{field.name: values[field.name] for field in dataclasses.fields(SamplingRules)}),
        prompts=read_prompts(values),
        stop=parse_stop_strings(values["stop"]),
        **{name: values[name] for name in ("max_new_tokens", "seed", "samples", "batch", "out", "stream")},
    )


def split_raw_arguments(args: list[str]) -> tuple[dict[str, str | None], list[str]]:
    """Texts and file names as they are typed, apart from the overrides: a prompt may hold any character."""
    raw: dict[str, str | None] = {}
    rest = []
    for arg in args:
        key, sign, value = arg.partition("=")
        if sign and key in RAW:
            raw[key] = None if value == "null" or (value == "" and key != "prompt") else value
        else:
            rest.append(arg)
    return raw, rest


def parse_stop_strings(given: list[str]) -> tuple[str, ...]:
    r"""Stop strings with \n and \t read as newline and tab."""
    texts = [item.replace("\\n", "\n").replace("\\t", "\t") for item in given]
    if "" in texts:
        raise ConfigError("stop: an empty string would end every text at once; leave it out")
    return tuple(texts)


def read_prompts(values: Mapping[str, Any]) -> tuple[str, ...]:
    if values["prompts_file"] is not None:
        return read_prompt_file(Path(values["prompts_file"]).expanduser())
    if values["prompt"] == "-":
        return (sys.stdin.read().removesuffix("\n"),)
    return (str(values["prompt"] or ""),)


def read_prompt_file(path: Path) -> tuple[str, ...]:
    """Prompts of a .jsonl (field `prompt`) or of any other text file (one per line); blank lines do not count."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise DataError(f"prompts_file={path} cannot be read: {reason}; give a .txt or .jsonl file") from error
    numbered = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    if not numbered:
        raise DataError(f"prompts_file={path} holds no prompt; write one per line")
    if path.suffix != ".jsonl":
        return tuple(line for _, line in numbered)
    return tuple(parse_prompt_line(line, f"{path}:{number}") for number, line in numbered)


def parse_prompt_line(line: str, where: str) -> str:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise DataError(f"{where} is not JSON: {error}") from error
    if not isinstance(row, dict) or not isinstance(row.get("prompt"), str):
        raise DataError(f'{where} has no text under "prompt"; write {{"prompt": "…"}}')
    return row["prompt"]
