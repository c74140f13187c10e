"""The files that stand with a tokenizer.json in a Hugging Face folder, and what they say of special tokens."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aptlab.errors import DataError

CONFIG, SPECIALS, TEMPLATE = "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"
GENERATION, MODEL = "generation_config.json", "config.json"
KEPT = (CONFIG, SPECIALS, TEMPLATE, GENERATION)  # whole; of config.json only the ids that begin and end a text
TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


@dataclass(frozen=True)
class SpecialWords:
    """What the files say of special tokens; nothing where there are none.

    names     texts by the names that chat templates use: bos_token, eos_token, …
    ends      ids at which a text ends: those of generation_config.json, else of config.json
    template  the chat template, None where there is none
    split     whether special tokens in a text are split like any other text
    added     entries of `added_tokens_decoder`, which change those of tokenizer.json
    defaults  generation_config.json
    asks_bos  add_bos_token of tokenizer_config.json, None where it says nothing
    """

    names: Mapping[str, str] = field(default_factory=dict)
    ends: tuple[int, ...] = ()
    template: str | None = None
    split: bool = True
    added: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    asks_bos: bool | None = None


def read_folder_files(path: Path) -> dict[str, str]:
    """Texts of the files in the folder of a tokenizer.json, by name. DataError for one that cannot be read."""
    found = {}
    for name in KEPT:
        file = path.parent / name
        if file.is_file():
            found[name] = read_text(file)
    if (path.parent / MODEL).is_file():
        whole = parse_object(read_text(path.parent / MODEL), MODEL)
        inner = whole.get("text_config")
        ids = {**(inner if isinstance(inner, dict) else {}), **whole}
        found[MODEL] = json.dumps({name: ids.get(name) for name in TOKEN_IDS})
    return found


def read_text(path: Path) -> str:
    """A file as text; DataError naming it."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise DataError(f"{path} cannot be read: {reason}; copy it again, or take it away") from error


def parse_object(text: str, name: str) -> dict[str, Any]:
    """A JSON object; DataError naming the file."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise DataError(f"{name} is not JSON: {error}; copy it again, or take it away") from error
    if not isinstance(value, dict):
        raise DataError(f"{name} holds a {type(value).__name__}, a JSON object is needed; copy it again")
    return value


def read_special_words(files: Mapping[str, str] | None) -> SpecialWords:
    """What `files` say; those of a tokenizer that came without any say nothing."""
    if not files:
        return SpecialWords()
    config, specials, generation, model = (
        parse_object(files[name], name) if name in files else {} for name in (CONFIG, SPECIALS, GENERATION, MODEL)
    )
    named = {**specials, **{key: value for key, value in config.items() if value is not None}}
    if config.get("bos_token", "") is None:
        named.pop("bos_token", None)
    added = config.get("added_tokens_decoder") or {}
    return SpecialWords(
        names={key: text for key, value in named.items() if key.endswith("_token") and (text := read_content(value))},
        ends=tuple(read_ids(generation.get("eos_token_id"))) or tuple(read_ids(model.get("eos_token_id"))),
        template=files.get(TEMPLATE) or choose_template(config.get("chat_template")),
        split=bool(config.get("split_special_tokens", CONFIG not in files)),
        added={int(key): entry for key, entry in added.items() if str(key).isdigit() and isinstance(entry, dict)},
        defaults=generation,
        asks_bos=config.get("add_bos_token"),
    )


def read_content(value: Any) -> str | None:
    """The text of a token, given as text or as an object with its `content`."""
    found = value.get("content") if isinstance(value, dict) else value
    return found if isinstance(found, str) else None


def read_ids(value: Any) -> Iterator[int]:
    """One id or a list of them; what is none is left out."""
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, int) and not isinstance(item, bool) and item >= 0:
            yield item


def choose_template(value: Any) -> str | None:
    """A chat template, or the one named default of a list of named ones."""
    if isinstance(value, list):
        named = {item.get("name"): item.get("template") for item in value if isinstance(item, dict)}
        value = named.get("default")
    return value if isinstance(value, str) else None
