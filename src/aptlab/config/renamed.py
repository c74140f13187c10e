"""Old words of the command line and the new ones: a table, and what is said where an old one is typed."""

from __future__ import annotations

from collections.abc import Iterable

# "group=option" or "key" (with all keys below it) -> the word of today.
RENAMED = {
    "data=stdlib": "source=stdlib",
    "data=text": "source=text",
    "data=hub": "source=hub",
    "data.source": "source",
    "data.parts": "source.parts",
    "data.field": "source.field",
    "data.on_bad": "source.on_bad",
    "data.config": "source.config",
    "data.limit": "source.limit",
    "data.revision": "source.revision",
    "data.document_mask": "data.rows.document_mask",
    "data.mix": "data.rows",
    "data.short": "data.rows.short",
    "data.packed": "data.rows.packed",
    "data.original_len": "data.rows.original_len",
}


def find_new_word(word: str) -> str | None:
    """The word of today for an old `group=option` or `key`, or None.

    >>> find_new_word("data.source.files")
    'source.files'
    """
    if word in RENAMED:
        return RENAMED[word]
    parts = word.partition("=")[0].split(".")
    for length in range(len(parts), 0, -1):
        if new := RENAMED.get(".".join(parts[:length])):
            return ".".join([new, *parts[length:]])
    return None


def find_renamed_problem(word: str) -> str | None:
    """The message for an old word, or None where the word was never another."""
    new = find_new_word(word)
    return f"{word}: is {new} now" if new else None


def translate_overrides(texts: Iterable[str]) -> list[str]:
    """Overrides as an earlier aptlab took them, in the words of today."""
    return [_translate(text) for text in texts]


def _translate(text: str) -> str:
    sign = text[: len(text) - len(text.lstrip("+~"))]
    key, equals, value = text[len(sign) :].partition("=")
    if new := RENAMED.get(f"{key}={value}"):
        return sign + new
    return f"{sign}{find_new_word(key) or key}{equals}{value}"
