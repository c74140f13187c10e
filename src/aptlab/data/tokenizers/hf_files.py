"""The files that stand with a tokenizer.json in a Hugging Face folder, and what they say of special tokens."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aptlab.bounded import parse_json, read_bounded_text
from aptlab.errors import DataError
from aptlab.shown import show_line

CONFIG, SPECIALS, TEMPLATE = "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"
GENERATION, MODEL = "generation_config.json", "config.json"
KEPT = (CONFIG, SPECIALS, TEMPLATE, GENERATION)  # whole; of config.json only the ids that begin and end a text
TOLD = ("single_word", "lstrip", "rstrip", "normalized", "special")  # of an added token, beside its content
LARGEST = (1 << 32) - 1  # id of a token, in the library
FLAGS = ("split_special_tokens", "add_bos_token", "add_eos_token", "do_sample")
NUMBERS = ("temperature", "top_k", "top_p", "min_p", "typical_p", "repetition_penalty", "model_max_length")
NUMBERS += ("max_new_tokens", "max_length", "num_beams")
TOKEN_IDS = IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


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
        return read_bounded_text(path)
    except (OSError, ValueError) as error:
        reason = (
            "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else getattr(error, "strerror", None) or error
        )
        raise DataError(f"{path} cannot be read: {reason}; copy it again, or take it away") from error


def parse_object(text: str, name: str) -> dict[str, Any]:
    """A JSON object; DataError naming the file."""
    try:
        value = parse_json(text)
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
    for values, file in ((config, CONFIG), (specials, SPECIALS), (generation, GENERATION), (model, MODEL)):
        check_values(values, file)
    return SpecialWords(
        names={key: text for key, value in named.items() if key.endswith("_token") and (text := read_content(value))},
        ends=tuple(read_ids(generation.get("eos_token_id"))) or tuple(read_ids(model.get("eos_token_id"))),
        template=files.get(TEMPLATE) or choose_template(config.get("chat_template")),
        split=bool(config.get("split_special_tokens", CONFIG not in files)),
        added=read_added(config.get("added_tokens_decoder") or {}),
        defaults=generation,
        asks_bos=config.get("add_bos_token"),
    )


def check_values(values: Mapping[str, Any], file: str) -> None:
    """DataError naming file and key where a value that is read has another kind than its key."""
    for key, value in values.items():
        if key in IDS:
            good, words = is_id(value) or (isinstance(value, list) and all(map(is_id, value))), "the id of a token"
        elif key in FLAGS:
            good, words = isinstance(value, bool), "true or false"
        elif key in NUMBERS:
            good, words = is_finite(value), "a finite number"
        elif key.endswith("_token"):
            good, words = read_content(value) is not None, "the text of a token"
        elif key == "chat_template":
            good, words = isinstance(value, str | list), "a text, or a list of named ones"
        else:
            continue
        if not good and value is not None:
            raise DataError(f"{key}={show_line(repr(value))[:60]} in {file} is not {words}; repair the file")


def is_id(value: Any) -> bool:
    """Whether a value is the id of a token; -1 stands for none in older files."""
    return isinstance(value, int) and not isinstance(value, bool) and -1 <= value <= LARGEST


def is_finite(value: Any) -> bool:
    """Whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def read_added(value: Any) -> dict[int, Mapping[str, Any]]:
    """`added_tokens_decoder`: id -> what is said of a token; DataError naming the key of what is no token."""
    if not isinstance(value, dict):
        raise DataError(f"added_tokens_decoder in {CONFIG} is a {type(value).__name__}, an object is needed; repair it")
    found = {}
    for key, entry in value.items():
        where = f"added_tokens_decoder.{show_line(key)[:20]} in {CONFIG}"
        if not (key.isascii() and key.isdecimal() and len(key) <= 10 and int(key) <= LARGEST):
            raise DataError(f"{where} is not named by the id of a token; repair the file")
        if not isinstance(entry, dict) or not isinstance(entry.get("content"), str):
            raise DataError(f"{where} has no content, the text of a token; repair the file")
        told = {name: entry[name] for name in TOLD if name in entry}
        if wrong := [name for name, flag in told.items() if not isinstance(flag, bool)]:
            raise DataError(f"{where}: {wrong[0]} is neither true nor false; repair the file")
        found[int(key)] = {"content": entry["content"], **told}
    return found


def read_content(value: Any) -> str | None:
    """The text of a token, given as text or as an object with its `content`."""
    found = value.get("content") if isinstance(value, dict) else value
    return found if isinstance(found, str) else None


def read_ids(value: Any) -> Iterator[int]:
    """One id or a list of them; what is none is left out."""
    for item in value if isinstance(value, list) else [value]:
        if is_id(item) and item >= 0:
            yield item


def choose_template(value: Any) -> str | None:
    """A chat template, or the one named default of a list of named ones."""
    if isinstance(value, list):
        named = {item.get("name"): item.get("template") for item in value if isinstance(item, dict)}
        value = named.get("default")
    return value if isinstance(value, str) else None
