"""Records that are read again carry a checksum: a changed digit is found by whoever reads it, and never used.

JSON    the key `check`: 16 hex digits of the sha256 of the other values, as JSON with sorted keys; so spaces and the
        order of keys may change, and a value may not
YAML    the first line, a comment: 16 hex digits of the sha256 of all bytes below it

A record of an earlier version has no checksum and is read as it is; `is_sealed` of what comes back says so. Who
changes a record on purpose takes the checksum out. No torch.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aptlab.bounded import PLAIN, parse_yaml
from aptlab.errors import AptlabError
from aptlab.runs.atomic import ROOM, format_yaml, make_finite, write_text
from aptlab.runs.files import open_file, read_file_json

CHECK = "check"
DIGITS = 16
HEAD = "# check {} of the lines below; take this line out after a change of your own\n"
_HEAD = re.compile(rb"# check ([0-9a-f]{16}) of the lines below[^\n]*\n")
Record = dict[str, Any]


def compute_check(values: Any) -> str:
    """16 hex digits that another value of any key would change."""
    text = json.dumps(values, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:DIGITS]


def seal_record(values: Mapping[str, Any]) -> Record:
    """Plain values with their checksum, as they come back from JSON."""
    plain = json.loads(json.dumps(values, default=str))
    plain.pop(CHECK, None)
    return {**plain, CHECK: compute_check(plain)}


def open_json_record(values: Any, name: str, *, way_out: str = "") -> tuple[Any, bool]:
    """The values without their checksum, and whether they had one.

    Raises AptlabError that names the record where the checksum is not theirs; `way_out` ends the message.
    """
    if not isinstance(values, dict):
        return values, False
    if CHECK not in values:
        if key := find_renamed_check(values):
            raise AptlabError(f"{name} is damaged: {key} is the name of its checksum{_way(way_out, key)}")
        return values, False
    rest = {key: value for key, value in values.items() if key != CHECK}
    if values[CHECK] != compute_check(rest):
        raise AptlabError(f"{name} is damaged: its values do not have its checksum{_way(way_out, CHECK)}")
    return rest, True


def find_renamed_check(values: Record) -> str | None:
    """The key of a checksum whose name was changed, which is damage too: its value is that of all others."""
    likely = [key for key, value in values.items() if isinstance(value, str) and len(value) == DIGITS]
    others = {key: {name: value for name, value in values.items() if name != key} for key in likely}
    return next((key for key in likely if values[key] == compute_check(others[key])), None)


def format_json_record(values: Mapping[str, Any], *, indent: int = 2) -> str:
    """The text of a JSON record; NaN and infinities become null, so that any JSON reader can read it."""
    plain = json.loads(json.dumps(make_finite(values), default=str))
    return json.dumps(seal_record(plain), indent=indent, ensure_ascii=False) + "\n"


def write_json_record(path: str | Path, values: Mapping[str, Any], *, way_out: str = ROOM) -> None:
    """Replace a JSON record; AptlabError that names the file and ends with `way_out` where it cannot be written."""
    write_text(path, format_json_record(values), way_out=way_out)


def write_yaml_record(path: str | Path, value: Any) -> None:
    """Replace a YAML record; AptlabError naming the file where it cannot be written."""
    text = format_yaml(value)
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:DIGITS]
    write_text(path, HEAD.format(digest) + text)


def read_record(path: str | Path, kind: type, *, way_out: str = "") -> tuple[Any, bool]:
    """What a JSON or YAML record holds, of the wanted kind, and whether it carried a checksum.

    Raises FileNotFoundError where there is none, else AptlabError that names the file and ends with `way_out`.
    """
    path = Path(path)
    try:
        if path.suffix == ".json":
            value, sealed = open_json_record(read_file_json(path), str(path), way_out=way_out)
        else:
            value, sealed = _read_yaml_record(path, way_out)
    except (FileNotFoundError, AptlabError):
        raise
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0]
        raise AptlabError(f"{path} cannot be read: {reason}{_way(way_out)}") from None
    if not isinstance(value, kind):
        raise AptlabError(f"{path} should hold a {kind.__name__}, it holds a {type(value).__name__}{_way(way_out)}")
    return value, sealed


def _read_yaml_record(path: Path, way_out: str) -> tuple[Any, bool]:
    import yaml

    with open_file(path, "rb") as file:
        data = file.read(PLAIN.bytes + 1)
    PLAIN.check_size(len(data))
    head = _HEAD.match(data)
    if head is not None:
        digest = hashlib.sha256(data[head.end() :]).hexdigest()[:DIGITS]
        if digest != head[1].decode():
            raise AptlabError(f"{path} is damaged: it does not have its checksum{_way(way_out, 'its first line')}")
    try:
        return parse_yaml(data.decode("utf-8")), head is not None
    except yaml.YAMLError as error:
        raise ValueError(f"not YAML ({str(error).splitlines()[0]})") from None


def find_shape_problem(value: Any, shape: Any, path: str = "") -> str | None:
    """The first place where plain values are not as `shape` says, in words; None where they are.

    shape  a type, a tuple of types, or a mapping of the keys that must be there to the shapes of their values

    >>> find_shape_problem({"a": {"b": "x"}}, {"a": {"b": int}})
    'a.b should be int, it is str'
    """
    if isinstance(shape, Mapping):
        if not isinstance(value, Mapping):
            return f"{path or 'it'} should be dict, it is {type(value).__name__}"
        for key, inner in shape.items():
            place = f"{path}.{key}" if path else str(key)
            problem = find_shape_problem(value[key], inner, place) if key in value else f"{place} is missing"
            if problem:
                return problem
        return None
    kinds = shape if isinstance(shape, tuple) else (shape,)
    if isinstance(value, kinds) and not (isinstance(value, bool) and bool not in kinds):
        return None
    return f"{path or 'it'} should be {' or '.join(kind.__name__ for kind in kinds)}, it is {type(value).__name__}"


def _way(way_out: str, taken_out: str | None = None) -> str:
    """The end of a message: what to do about a damaged record."""
    own = f"if you changed it yourself, take out {taken_out}" if taken_out else ""
    words = [word for word in (own, way_out) if word]
    return f"; {', else '.join(words)}" if words else ""
