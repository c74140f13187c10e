"""Messages of a chat as one text. A template comes with a model that somebody else made, so it runs in a sandbox."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from aptlab.errors import DataError

END = "<end of what is to be continued> "  # the last space tells whether the template trims


class GenerationBlock(Extension):
    """`{% generation %}…{% endgeneration %}`, by which some templates mark what the model wrote: shown as it is."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def render_chat(
    template: str, messages: Sequence[Mapping[str, Any]], *, names: Mapping[str, str], reply: bool = True
) -> str:
    """The text of `messages` as transformers renders it.

    names  special tokens by the names that the template uses, such as bos_token
    reply  go on to where an answer begins (`add_generation_prompt`); else stop at the end of the last message's content
           (`continue_final_message`)

    The template sees plain JSON values only. DataError for messages that are none, and for what the template refuses.
    """
    plain = check_messages(messages)
    if not reply:
        plain[-1]["content"] = f"{plain[-1].get('content', '')}{END}"
    try:
        text = compile_template(template).render(**names, messages=plain, add_generation_prompt=reply)
    except Exception as error:  # whatever a template of somebody else raises
        raise DataError(f"the chat template refuses these messages: {error}; see tokenizer.chat_template") from error
    return text if reply else cut_last_message(text)


def cut_last_message(text: str) -> str:
    """A chat up to the mark behind its last message; a template that trims contents trims this one too."""
    before, mark, _ = text.rpartition(END.strip())
    if not mark:
        raise DataError("the chat template leaves the last message out, so it cannot be continued")
    return before if text.startswith(END, len(before)) else before.rstrip()


def check_messages(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Copies of the messages, of plain values. DataError for what is no list of role and content."""
    if isinstance(messages, str | Mapping) or not messages:
        raise DataError('messages must be a list such as [{"role": "user", "content": "…"}], with one at least')
    for message in messages:
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise DataError(f'{str(message)[:80]!r} is no message; write {{"role": "user", "content": "…"}}')
    try:
        return [json.loads(json.dumps({k: v for k, v in one.items() if v is not None})) for one in messages]
    except (TypeError, ValueError) as error:
        raise DataError(f"a message holds what JSON cannot: {error}; give texts, numbers, lists and dicts") from error


@lru_cache(maxsize=8)
def compile_template(template: str) -> Any:
    """The template, with what transformers gives templates besides Jinja's own."""
    found = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationBlock, loopcontrols]
    )
    found.filters["tojson"] = dump_json
    found.globals |= {"raise_exception": raise_exception, "strftime_now": format_now}
    return found.from_string(template)


def dump_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as it is; Jinja's own filter writes `<` as `\\u003c`, for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def raise_exception(message: str) -> NoReturn:
    """By which a template says what it does not take."""
    raise TemplateError(message)


def format_now(pattern: str) -> str:
    """Today's date, which some templates write into the system message."""
    return datetime.now().strftime(pattern)
