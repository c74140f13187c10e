"""The manifest beside each checkpoint: what the file must be, to the bit. No torch.

`step-00000400.ckpt` counts only together with `step-00000400.json`, which is named last and removed first.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aptlab.bounded import parse_json
from aptlab.errors import CheckpointError
from aptlab.runs.atomic import write_text
from aptlab.runs.files import UnsafeFileError, open_file, read_file_text, refuse_link
from aptlab.runs.record import find_shape_problem

FORMAT = 1
PENDING = ".pending"
CHUNK = 1 << 22  # bytes read at a time
SHAPE = {"sha256": str, "bytes": int, "step": int, "format": int}  # what there must be
MORE: dict[str, Any] = {
    "metric": (int, float),
    "time": (int, float),
    "overrides": list,
    "choices": dict,
    "config": dict,
}
MORE |= dict.fromkeys(("monitor", "mode", "version", "config_hash", "run_dir"), str)
_NAME = re.compile(r"step-(\d{8,})\.(ckpt|json)")
_TEMPORARY = re.compile(r"\.(?:poisoned-)?step-\d{8,}\.(ckpt|json)\.[0-9a-f]{8}\.tmp")


@dataclass(frozen=True)
class Manifest:
    """What is known of a checkpoint without opening it.

    sha256, bytes      of the file
    step               optimizer steps taken
    metric, monitor    value of the monitored number right after this step, or None where it was not measured
    mode               whether a small (`min`) or a large (`max`) metric is good
    time               seconds since 1970, for people only; nothing is ordered by it
    config, overrides, choices, config_hash, run_dir, version   of the run
    fingerprint        of the text and its tokens; "" where an earlier version wrote it
    """

    sha256: str
    bytes: int
    step: int
    metric: float | None = None
    monitor: str = ""
    mode: str = "min"
    time: float = 0.0
    version: str = ""
    format: int = FORMAT
    config_hash: str = ""
    run_dir: str = ""
    fingerprint: str = ""
    overrides: list[str] = field(default_factory=list)
    choices: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)

    def text(self) -> str:
        """JSON with a checksum of its own under `check`."""
        plain = json.loads(json.dumps(dataclasses.asdict(self), default=str))
        return json.dumps({"check": check_values(plain), **plain}, indent=2) + "\n"

    @classmethod
    def parse(cls, text: str, name: str = "manifest") -> Manifest:
        """Read the JSON; raises CheckpointError if it is cut off, altered, or of a later format."""
        try:
            plain = parse_json(text)
        except (ValueError, RecursionError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise CheckpointError(f"{name} is damaged (not a manifest: {reason})") from None
        if not isinstance(plain, dict) or "check" not in plain:
            what = "check is missing" if isinstance(plain, dict) else f"it is a JSON {type(plain).__name__}"
            raise CheckpointError(f"{name} is damaged (not a manifest: {what})")
        check = plain.pop("check")
        if check != check_values(plain):
            raise CheckpointError(f"{name} is damaged (its own checksum differs)")
        problem = find_shape_problem({"format": 0, **plain}, SHAPE)
        problem = problem or find_shape_problem(plain, {key: MORE[key] for key in MORE if plain.get(key) is not None})
        if problem:
            raise CheckpointError(f"{name} is damaged (not a manifest: {problem})")
        if plain.get("format", 0) > FORMAT:
            raise CheckpointError(
                f"{name} has format {plain['format']}, this aptlab reads {FORMAT}; install a newer aptlab"
            )
        known = {item.name for item in dataclasses.fields(cls)}
        return cls(**{key: value for key, value in plain.items() if key in known})


def check_values(plain: Mapping[str, Any]) -> str:
    """The checksum of a manifest's values: sha256 of their JSON with sorted keys."""
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def make_manifest_path(path: str | Path) -> Path:
    """step-00000400.ckpt -> step-00000400.json, also for names of the user's own."""
    return Path(path).with_suffix(".json")


def make_pending_path(path: str | Path) -> Path:
    """step-00000400.ckpt -> .step-00000400.json.pending, the manifest until its file has its name."""
    manifest = make_manifest_path(path)
    return manifest.with_name(f".{manifest.name}{PENDING}")


def format_checkpoint_name(step: int) -> str:
    """File name of a step; names sort like steps."""
    return f"step-{step:08d}.ckpt"


def format_poisoned_name(step: int) -> str:
    """File name under which weights that are not finite are kept aside: no checkpoint that is looked for."""
    return f"poisoned-{format_checkpoint_name(step)}"


def parse_checkpoint_step(path: str | Path) -> int | None:
    """The step in a file name of ours, else None."""
    match = _NAME.fullmatch(Path(path).name)
    return int(match[1]) if match else None


def is_temporary(path: str | Path) -> bool:
    """Whether a file is the half-written remains of a save."""
    return _TEMPORARY.fullmatch(Path(path).name) is not None


def read_manifest(path: str | Path) -> Manifest:
    """The manifest of a checkpoint file; raises CheckpointError that says what is missing or damaged.

    A pending one counts where a save was killed before it got its name: its sha256 says whether the file is the one.
    """
    manifest = make_manifest_path(path)
    if not manifest.exists() and make_pending_path(path).is_file():
        manifest = make_pending_path(path)
    try:
        text = read_file_text(manifest)
    except FileNotFoundError:
        raise CheckpointError(
            f"{path} has no manifest ({make_manifest_path(path).name}), so it was not saved completely; use another "
            "checkpoint of the run"
        ) from None
    except UnsafeFileError as error:
        raise CheckpointError(str(error)) from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{manifest} is damaged or unreadable ({error})") from None
    return Manifest.parse(text, str(manifest))


def write_manifest(path: str | Path, manifest: Manifest) -> None:
    """Put the manifest beside its checkpoint, atomically."""
    write_text(make_manifest_path(path), manifest.text())


def find_checkpoint_problem(path: str | Path, *, deep: bool = True) -> str | None:
    """What is wrong with a checkpoint, or None. `deep` reads the whole file and compares its sha256."""
    path = Path(path)
    try:
        if not refuse_link(path).is_file():
            return f"{path} does not exist"
        size = path.stat().st_size
        if size == 0:
            return f"{path} is empty"
        manifest = read_manifest(path)
        if size != manifest.bytes:
            change = "truncated" if size < manifest.bytes else "longer than it was"
            return f"{path} is {change}: {size:,} bytes of {manifest.bytes:,}"
        if deep and hash_file(path) != manifest.sha256:
            return f"{path} is damaged: its content does not match its sha256"
    except (CheckpointError, UnsafeFileError) as error:
        return str(error)
    except OSError as error:
        return f"{path} cannot be read: {error.strerror or error}"
    return None


def is_valid(path: str | Path, deep: bool = True) -> bool:
    """Whether a checkpoint is complete and, when `deep`, unaltered to the bit."""
    return find_checkpoint_problem(path, deep=deep) is None


def hash_file(path: str | Path) -> str:
    """Hex digest of a file, read piece by piece."""
    digest, buffer = hashlib.sha256(), memoryview(bytearray(CHUNK))
    with open_file(path, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
    return digest.hexdigest()
