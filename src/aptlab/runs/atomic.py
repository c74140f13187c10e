"""Files that are either the old one or the new one, never half of one."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import Any

from aptlab.bounded import parse_yaml
from aptlab.errors import AptlabError
from aptlab.runs.files import read_file_text

ROOM = "free some space or choose another run_dir"


def write_text(path: str | Path, text: str, *, way_out: str = ROOM) -> None:
    """Replace a file: temporary file in the same folder, fsync, rename, fsync of the folder.

    Half a character, as a file name of other bytes has, is written as JSON spells it: `\\udc80`.
    Raises AptlabError naming the file if the disk is full or the place cannot be written; `way_out` ends the message.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "x", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        raise AptlabError(f"cannot write {path}: {error.strerror or error}; {way_out}") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | Path, value: Any) -> None:
    """Replace a JSON file; NaN and infinities become null, so that any JSON reader can read it."""
    write_text(path, json.dumps(make_finite(value), indent=2, ensure_ascii=False, default=str) + "\n")


def write_yaml(path: str | Path, value: Any) -> None:
    """Replace a YAML file of plain containers; strings that look like numbers are quoted."""
    write_text(path, format_yaml(value))


def format_yaml(value: Any) -> str:
    """Plain YAML in the order of the keys, which OmegaConf and PyYAML read back alike."""
    import yaml

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    def string(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"' if _numeric(text) else None)

    Dumper.add_representer(str, string)
    return yaml.dump(value, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=110)


def read_yaml(path: str | Path) -> Any:
    """What a YAML file written by `write_yaml` holds; raises ValueError or OSError."""
    import yaml

    try:
        return parse_yaml(read_file_text(path))
    except yaml.YAMLError as error:
        raise ValueError(f"not YAML ({str(error).splitlines()[0]})") from error


def _numeric(text: str) -> bool:
    try:
        float(text.replace("_", ""))
    except ValueError:
        return False
    return True


def make_finite(value: Any) -> Any:
    """Plain values with null for NaN and infinities, which JSON has no words for, and text for keys."""
    if isinstance(value, dict):
        return {str(key): make_finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [make_finite(item) for item in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value


def sync_folder(folder: Path) -> None:
    """Make the rename itself durable, where the system can open folders."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass  # some network file systems refuse to sync a folder; the file itself is safe
    finally:
        os.close(handle)
