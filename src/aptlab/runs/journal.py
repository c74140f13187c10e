"""Records on disk as they come, one JSON object a line, so that work which was broken off goes on where it was.

A journal with an identity opens with the line `{"request": {…}}`; every further line is one record. One without an
identity, such as the events of a sweep, is records alone. Each line carries the checksum of its other values under
`check`, see `aptlab.runs.record`; lines of earlier versions have none and are taken as they are. No torch.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from aptlab.bounded import parse_json
from aptlab.errors import AptlabError
from aptlab.runs.files import open_file
from aptlab.runs.record import open_json_record, seal_record

log = logging.getLogger("aptlab")
NAME = "journal.jsonl"
Record = dict[str, Any]
Upgrade = Callable[[Record], Record]
Inspect = Callable[[Record], str | None]


class Journal:
    """Append-only JSON lines: a record is written whole and synced before `append` returns.

    path      the file, in a folder that exists; None keeps the records in memory alone
    identity  plain values on which the records depend; another identity in the file is an AptlabError that lists
              every value that differs. None: the file has no such line
    ignored   keys of the identity that may differ
    upgrade   turns the first line of an older version into one of today
    inspect   what is wrong with the shape of a record, in words, or None; such a line is as damaged as any other
    afresh    how the user begins anew, for the errors
    lenient   leave damaged lines out with a warning; else the first one is an AptlabError with its number

    A crash costs at most the line that was being written: it is cut off when the journal is opened again.
    `records` are those of earlier processes and of this one, in order.
    Raises AptlabError where the file cannot be read or written.
    """

    def __init__(
        self,
        path: str | Path | None,
        identity: Mapping[str, Any] | None = None,
        *,
        ignored: Iterable[str] = (),
        upgrade: Upgrade = dict,
        inspect: Inspect = lambda record: None,
        afresh: str = "choose another out=…",
        lenient: bool = False,
    ) -> None:
        self.path = None if path is None else Path(path)
        self.records: list[Record] = []
        self._ignored, self._afresh, self._lenient = frozenset(ignored), afresh, lenient
        lines = self._read()
        head = int(identity is not None)
        if identity is not None:
            plain: Record = json.loads(json.dumps(identity, default=str))
            if lines:
                self._check_identity(self._upgrade(lines[min(lines)], upgrade), plain)
            else:
                self._write({"request": plain})
        for number in list(lines)[head:]:
            problem = inspect(lines[number])
            if problem is None:
                self.records.append(lines[number])
            else:
                self._tell_damage(number, f" ({problem})")

    def append(self, record: Mapping[str, Any]) -> None:
        """Add a record; it is on disk when this returns."""
        self._write(record)
        self.records.append(dict(record))

    def _write(self, record: Mapping[str, Any]) -> None:
        if self.path is None:
            return
        try:
            with open_file(self.path, "ab") as file:
                file.write(json.dumps(seal_record(record), ensure_ascii=False).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise AptlabError(
                f"cannot write {self.path}: {error.strerror or error}; free some space and repeat the command, "
                f"or {self._afresh}"
            ) from error

    def _read(self) -> dict[int, Record]:
        """Number and record of every line of the file, after a torn last line is cut off."""
        if self.path is None:
            return {}
        try:
            with open_file(self.path, "rb") as file:
                content = file.read()
            whole = content[: content.rfind(b"\n") + 1]
            if len(whole) < len(content):
                with open_file(self.path, "r+b") as file:
                    file.truncate(len(whole))
                log.info("%s: the last line was cut off; its part is done again", self.path)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise AptlabError(f"cannot read {self.path}: {error.strerror or error}; {self._afresh}") from error
        parsed = {number: parse_line(line) for number, line in enumerate(whole.splitlines(), start=1)}
        for number in (number for number, (record, _) in parsed.items() if record is None):
            self._tell_damage(number)
        unsealed = sum(record is not None and not sealed for record, sealed in parsed.values())
        if unsealed:
            log.info(
                "%s: %d of %d lines are of an earlier version, without checksums: taken as they are",
                self.path,
                unsealed,
                len(parsed),
            )
        return {number: record for number, (record, _) in parsed.items() if record is not None}

    def _tell_damage(self, number: int, what: str = "") -> None:
        if not self._lenient:
            way = "delete the file" if number == 1 else f"delete that line (sed -i {number}d) to do its part again"
            raise AptlabError(f"{self.path}, line {number} is damaged{what}; {way}, or {self._afresh}")
        log.warning("%s, line %d is damaged%s and left out", self.path, number, what)

    def _upgrade(self, line: Record, upgrade: Upgrade) -> Any:
        """The request of a first line, in the words of today; None where it holds no such thing."""
        if not isinstance(line.get("request", {}), dict):
            return None
        return upgrade(line).get("request")

    def _check_identity(self, before: Any, now: Record) -> None:
        if not isinstance(before, dict):
            raise AptlabError(f"{self.path} does not begin with a request; delete it, or {self._afresh}")
        old, new = ({key: side[key] for key in side if key not in self._ignored} for side in (before, now))
        changed = list_differences(old, new)
        if changed:
            lines = [f"{self.path} holds the results of another request; what differs:"]
            lines += [f"  {line}" for line in changed]
            raise AptlabError("\n".join([*lines, f"repeat that request to go on, or {self._afresh} for this one"]))


def parse_line(line: bytes) -> tuple[Record | None, bool]:
    """The object of a line and whether it has a checksum; None where it holds none, or does not have its checksum."""
    try:
        record, sealed = open_json_record(parse_json(line), "")
    except (ValueError, RecursionError):
        return None, False
    return (record if isinstance(record, dict) else None), sealed


def list_differences(before: Any, now: Any, path: str = "") -> list[str]:
    """`key.key: old -> new` for every value that is not the same; a key that is missing counts as null."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = dict.fromkeys([*before, *now])
        return [
            line
            for key in keys
            for line in list_differences(before.get(key), now.get(key), f"{path}.{key}" if path else str(key))
        ]
    return [] if before == now else [f"{path}: {shorten_json(before)} -> {shorten_json(now)}"]


def shorten_json(value: Any) -> str:
    """A value as JSON, at most 80 characters of it."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:79] + "…"
