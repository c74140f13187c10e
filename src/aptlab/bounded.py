"""JSON and YAML of files that somebody else may have made: bounds are checked before a value is made of the text.

A few bytes of nesting end a reader in its recursion limit, and a few aliases of aliases stand for more values than any
memory holds. So size, depth and number of values are counted first, in time linear in the text. No torch.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any


@dataclass(frozen=True)
class Bounds:
    """What a file may hold: bytes of text, levels of nesting, and values, those behind an alias counted each time."""

    bytes: int
    depth: int = 64
    values: int = 1_000_000

    def check_size(self, size: int) -> None:
        """ValueError for more bytes than are allowed."""
        if size > self.bytes:
            raise ValueError(f"it has {size:,} bytes, at most {self.bytes:,} are read")

    def check_depth(self, depth: int) -> None:
        """ValueError for more levels than are allowed."""
        if depth > self.depth:
            raise ValueError(f"it is nested deeper than {self.depth} levels")

    def check_values(self, values: int) -> None:
        """ValueError for more values than are allowed."""
        if values > self.values:
            raise ValueError(f"it stands for more than {self.values:,} values")


PLAIN = Bounds(bytes=16 << 20)  # configurations, manifests, results, lines of a journal
OPTION = Bounds(bytes=1 << 20, depth=32, values=100_000)  # an option file of a conf folder
TABLE = Bounds(bytes=512 << 20, values=50_000_000)  # vocabularies, lists of weights, rows of an eval

_STRING = re.compile(r'"(?:[^"\\]|\\.)*+(?:"|\Z)', re.DOTALL)  # one that never ends goes on to the end
_NO_BRACKET = re.compile(r"[^\[\]{}]+")
_INNERMOST = re.compile(r"\[\]|\{\}")
_OPENING = re.compile(r"^[ \-?:]*", re.MULTILINE)  # every level of a block takes a character in front of its line


def read_bounded(file: IO[bytes], bounds: Bounds = PLAIN) -> str:
    """The text of an open file; ValueError for too many bytes or what is not UTF-8."""
    content = file.read(bounds.bytes + 1)
    bounds.check_size(len(content))
    return content.decode("utf-8")


def read_bounded_text(path: str | Path, bounds: Bounds = PLAIN) -> str:
    """The text of a file that may be a link, as those of a data folder are; ValueError and OSError."""
    with open(path, "rb") as file:
        return read_bounded(file, bounds)


def parse_json(text: str | bytes, bounds: Bounds = PLAIN) -> Any:
    """The value of a JSON text; ValueError for what is none, or more than `bounds`."""
    bounds.check_size(len(text))
    plain = text.decode("utf-8") if isinstance(text, bytes) else text
    check_json_nesting(plain, bounds)
    try:
        return json.loads(plain)
    except RecursionError:  # brackets that are never closed
        raise ValueError(f"it is nested deeper than {bounds.depth} levels") from None


def check_json_nesting(text: str, bounds: Bounds) -> None:
    """ValueError where brackets nest deeper, or hold more values, than `bounds`; whether they match is not asked."""
    openings = text.count("[") + text.count("{")
    if openings <= bounds.depth and text.count(",") + openings < bounds.values:
        return
    bare = _STRING.sub("", text)
    bounds.check_values(1 + bare.count(",") + bare.count("[") + bare.count("{"))
    brackets = _NO_BRACKET.sub("", bare)
    for _ in range(bounds.depth):  # each time one level goes, the innermost
        before, brackets = len(brackets), _INNERMOST.sub("", brackets)
        if len(brackets) == before:  # the rest matches nothing, which is told where it is read
            bounds.check_depth(brackets.count("[") + brackets.count("{"))
            return
    bounds.check_depth(bounds.depth + len(brackets))


def parse_yaml(text: str, loader: Any = None, bounds: Bounds = PLAIN) -> Any:
    """The value of a YAML text by a loader of PyYAML, its safe one where none is given.

    Raises yaml.YAMLError for what is none; ValueError for more than `bounds`, or a value that its tag does not allow.
    """
    import yaml

    loader = loader or getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    bounds.check_size(len(text))
    if needs_events(text, bounds):
        check_yaml_events(text, loader, bounds)
    try:
        return yaml.load(text, loader)
    except (yaml.YAMLError, ValueError):
        raise
    except RecursionError:
        raise ValueError(f"it is nested deeper than {bounds.depth} levels") from None
    except (LookupError, AttributeError, TypeError) as error:  # what PyYAML's constructors let through
        raise ValueError(f"a value that its tag does not allow ({error})") from None


def needs_events(text: str, bounds: Bounds) -> bool:
    """Whether a text may go beyond `bounds`; most do not look so, and are spared a second pass of the parser."""
    if "&" in text or len(text) > bounds.values:
        return True
    blocks = max(map(len, _OPENING.findall(text)), default=0)
    return blocks + text.count("[") + text.count("{") > bounds.depth


def check_yaml_events(text: str, loader: Any, bounds: Bounds) -> None:
    """ValueError where the nodes of a YAML text, aliases expanded, nest deeper or are more than `bounds`.

    Reads events, which hold no nodes yet; an alias counts as what it stands for.
    """
    import yaml

    known: dict[str, tuple[int, int]] = {}  # anchor -> values and levels of its node
    opened: list[tuple[str | None, int, int]] = []  # anchor, values, levels below, of every node that is still open
    names: set[str] = set()
    for event in yaml.parse(text, Loader=loader):
        if isinstance(event, yaml.CollectionStartEvent):
            opened.append((event.anchor, 1, 0))
            names.add(event.anchor or "")
            bounds.check_depth(len(opened))
            continue
        if isinstance(event, yaml.AliasEvent):
            if event.anchor in names - set(known):
                raise ValueError(f"the node &{event.anchor} holds itself")
            values, levels = known.get(event.anchor, (1, 0))
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, values, levels = opened.pop()
            levels += 1
            known |= {anchor: (values, levels)} if anchor else {}
        elif isinstance(event, yaml.ScalarEvent):
            values, levels = 1, 0
            known |= {event.anchor: (1, 0)} if event.anchor else {}
        else:
            continue
        bounds.check_values(values)
        bounds.check_depth(len(opened) + levels)
        if opened:
            anchor, before, deepest = opened[-1]
            bounds.check_values(before + values)
            opened[-1] = (anchor, before + values, max(deepest, levels))
