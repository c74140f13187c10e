"""The text of one row: a field by its name or its path, and what is wrong where there is none."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

from aptlab.errors import suggest_option

DEPTH = 4  # levels of objects in objects that are listed
EMPTY, NO_FIELD = "is empty", "has no such field"  # kinds of problems that are treated in a way of their own


class RowProblem(NamedTuple):
    """Why a row is no document: `kind` is what such rows are counted by, `text` says it of this one.

    `fields` are those that do hold text, where the one that was asked for does not.
    """

    kind: str
    text: str
    fields: tuple[str, ...] = ()


def read_field(row: Mapping[str, Any], field: str) -> str | RowProblem:
    """The text at `field`, a name or a path such as `meta.content`; a name with dots in it comes first."""
    found = find_value(row, field)
    if found is None:
        names = list(list_fields(row))
        return RowProblem(NO_FIELD, f"has no field {field!r}{list_other_fields(field, names)}", list_text_fields(row))
    problem = find_text_problem(found[0], field)
    if problem is not None and not isinstance(found[0], str):
        return problem._replace(fields=list_text_fields(row))
    return problem or found[0]


def list_text_fields(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the fields that hold text."""
    found = ((name, find_value(row, name)) for name in list_fields(row))
    return tuple(name for name, value in found if value is not None and isinstance(value[0], str))


def describe_no_text(field: str, where: str, fields: Collection[str]) -> str:
    """The message where not one row has text in its field; `fields` have."""
    return f"field={field}: no row of {where} has text in {field!r}; text fields: {', '.join(fields) or 'none'}"


def find_value(row: Mapping[str, Any], field: str) -> tuple[Any] | None:
    """The value at a name or path, in a tuple since it may be None; None where there is none.

    >>> find_value({"meta": {"content": "a"}}, "meta.content")
    ('a',)
    """
    if field in row:
        return (row[field],)
    words = field.split(".")
    for count in range(1, len(words)):
        inner = row.get(".".join(words[:count]))
        if isinstance(inner, Mapping) and (found := find_value(inner, ".".join(words[count:]))) is not None:
            return found
    return None


def list_fields(row: Mapping[str, Any], prefix: str = "", depth: int = DEPTH) -> Iterator[str]:
    """Names of all fields, those of inner objects as paths."""
    for name, value in row.items():
        if isinstance(value, Mapping) and value and depth > 1:
            yield from list_fields(value, f"{prefix}{name}.", depth - 1)
        else:
            yield f"{prefix}{name}"


def list_other_fields(field: str, names: list[str]) -> str:
    """The tail of a message about a field that is not there: the nearest one, and those that are."""
    tail = suggest_option(field, names)
    return f"{tail} It has: {', '.join(names[:12])}" if "did you mean" in tail else tail


def find_text_problem(text: Any, field: str) -> RowProblem | None:
    """Why `text` is no document, or None."""
    if not isinstance(text, str):
        kind = f"field {field!r} expects text"
        return RowProblem(kind, f"{kind}, got {type(text).__name__} {str(text)[:40]!r}")
    if not text:
        return RowProblem(EMPTY, f"field {field!r} is empty")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        kind = f"field {field!r} holds a lone surrogate"
        return RowProblem(kind, f"{kind} at character {error.start}, which UTF-8 cannot store")
    return None
