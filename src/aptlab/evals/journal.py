"""Results written down as they come, so that a broken evaluation goes on where it was. No torch."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from aptlab.errors import AptlabError

NAME = "journal.jsonl"


class ResultJournal:
    """A file with the request on its first line and one finished result on each further line.

    Each line is written whole, flushed and synced before the next, so a crash costs at most the line that was being
    written. That torn line is dropped when the journal is opened again. `rows` are the results so far.

    Raises AptlabError when the file cannot be written, is damaged before its last line, or belongs to another request;
    the message names what differs. `ignoring` names keys that may differ.
    """

    def __init__(self, folder: Path, request: Mapping[str, Any], *, ignoring: Iterable[str] = ()) -> None:
        self.path = folder / NAME
        self._ignored = set(ignoring)
        self.rows: list[dict[str, Any]] = []
        asked: dict[str, Any] = json.loads(json.dumps(request, default=str))
        lines, whole = self._lines()
        try:
            self._file = open(self.path, "r+b" if self.path.exists() else "xb")  # noqa: SIM115  closed by close()
            self._file.truncate(whole)
            self._file.seek(whole)
        except OSError as error:
            raise AptlabError(f"cannot write {self.path}: {error.strerror or error}; choose another out=…") from error
        if lines:
            self._check(lines[0].get("request"), asked)
            self.rows = lines[1:]
        else:
            self.append({"request": asked})
            self.rows = []

    def append(self, row: Mapping[str, Any]) -> None:
        """Keep a result; it is on disk when this returns."""
        try:
            self._file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise AptlabError(
                f"cannot write {self.path}: {error.strerror or error}; free some space and give the same command again"
            ) from error
        self.rows.append(dict(row))

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> ResultJournal:
        return self

    def __exit__(self, *problem: object) -> None:
        self.close()

    def _lines(self) -> tuple[list[dict[str, Any]], int]:
        """What the file holds, and the number of its bytes that are whole lines."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return [], 0
        except OSError as error:
            raise AptlabError(f"cannot read {self.path}: {error.strerror or error}; choose another out=…") from error
        whole = content.rfind(b"\n") + 1
        rows = []
        for number, line in enumerate(content[:whole].splitlines(), start=1):
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if not isinstance(row, dict):
                raise AptlabError(f"{self.path}, line {number} is damaged; delete the file, or choose another out=…")
            rows.append(row)
        return rows, whole

    def _check(self, before: Any, now: dict[str, Any]) -> None:
        if not isinstance(before, dict):
            raise AptlabError(f"{self.path} does not begin with a request; delete it, or choose another out=…")
        changed = [
            line for line in list_differences(before, now) if line.partition(":")[0].split(".")[0] not in self._ignored
        ]
        if changed:
            self._file.close()
            lines = [f"{self.path} holds the results of another request; what differs:", *changed]
            lines.append("give the request as it was to go on, or choose another out=… for this one")
            raise AptlabError("\n".join(lines))


def list_differences(before: Any, now: Any, path: str = "") -> list[str]:
    """`key.key: old -> new` for every value that is not the same."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = dict.fromkeys([*before, *now])
        return [
            line
            for key in keys
            for line in list_differences(before.get(key), now.get(key), f"{path}.{key}" if path else str(key))
        ]
    return [] if before == now else [f"{path}: {shorten_json(before)} -> {shorten_json(now)}"]


def shorten_json(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:79] + "…"
