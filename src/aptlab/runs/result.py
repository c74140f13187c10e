"""What a finished run reports: result.json as an object."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aptlab.errors import AptlabError
from aptlab.runs.record import read_record

log = logging.getLogger("aptlab")
AGAIN = "repeat the run, or its end with ckpt=<its folder>"
EARLIER = "results"  # folder in a run's own, for the results of earlier ends


@dataclass(frozen=True)
class Result:
    """The numbers of one finished run. Losses in nats per token, bpb in bits per byte, time in seconds.

    `lengths` holds one entry per multiple of the training context:
    `{"multiple", "length", "loss", "ppl", "bpb", "tokens"}`; `evals` the rows of every other eval by its key, or
    `{"error": message}`. `ran` says what really ran: devices, strategy, precision. `unit` is what `tokens` counts in a
    task that reads none. `origin` is the checkpoint whose weights the run began with, {"checkpoint", "step"}, empty for
    a run from scratch. `status` is "trained" until the evals are done, then "finished".
    """

    job: str
    seed: int
    choices: dict[str, Any] = field(default_factory=dict)
    overrides: list[str] = field(default_factory=list)
    config_hash: str = ""
    ran: dict[str, Any] = field(default_factory=dict)
    steps: int = 0
    tokens: int = 0
    unit: str = "tokens"
    seconds: float = 0.0
    tokens_per_second: float = 0.0
    parameters: int = 0
    flops_per_token: float = 0
    context: int = 0
    skipped_steps: int = 0
    data: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float | None] = field(default_factory=dict)
    lengths: list[dict[str, Any]] = field(default_factory=list)
    evals: dict[str, Any] = field(default_factory=dict)
    origin: dict[str, Any] = field(default_factory=dict)
    status: str = "finished"

    def plain(self) -> dict[str, Any]:
        """The dictionary that result.json holds, `status` first."""
        return {"status": self.status, **dataclasses.asdict(self)}

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> Result:
        """Read a dictionary; keys of a later version are ignored, missing ones take their default.

        Raises AptlabError if job or seed is missing or a value has the wrong kind.
        """
        if not isinstance(values, Mapping):
            raise AptlabError(f"a result must be a JSON object, got {type(values).__name__}")
        known = {item.name: item for item in dataclasses.fields(cls)}
        missing = [name for name in ("job", "seed") if name not in values]
        if missing:
            raise AptlabError(f"a result without {' and '.join(missing)}")
        for name, kinds in _KINDS.items():
            if name in values and not _is_kind(values[name], kinds):
                raise AptlabError(f"{name} has the wrong kind: {type(values[name]).__name__}")
        for name, kinds in _ITEMS.items():
            items = values.get(name, ())
            for item in items.values() if isinstance(items, Mapping) else items:
                if not _is_kind(item, kinds):
                    raise AptlabError(f"{name} holds a {type(item).__name__}")
        return cls(**{name: value for name, value in values.items() if name in known})

    @classmethod
    def read(cls, path: str | Path) -> Result:
        """Read result.json (or the folder that holds it); raises AptlabError naming the file."""
        return read_sealed_result(path)[0]


def read_sealed_result(path: str | Path) -> tuple[Result, bool]:
    """The result in a file or a run folder, and whether it carries a checksum; AptlabError naming the file."""
    path = Path(path)
    path = path / "result.json" if path.is_dir() else path
    try:
        values, sealed = read_record(path, dict, way_out=AGAIN)
    except FileNotFoundError:
        raise AptlabError(f"{path.parent} is not a finished run: it has no result.json") from None
    try:
        return Result.from_plain(values), sealed
    except AptlabError as error:
        raise AptlabError(f"{path} cannot be read: {error}; {AGAIN}") from None


def read_result_if_whole(folder: Path) -> Result | None:
    """The result of a run, or None where it has none; a damaged one is none, and a line in the log says so."""
    if not (folder / "result.json").exists():
        return None
    try:
        return Result.read(folder)
    except AptlabError as error:
        log.warning("not used: %s", error)
        return None


def _is_kind(value: Any, kinds: Any) -> bool:
    """Whether a plain value is of these kinds; a truth value is no number."""
    return isinstance(value, kinds) and not (isinstance(value, bool) and kinds in (int, int | float, _NUMBER_OR_NONE))


_NUMBERS = ("tokens", "seconds", "tokens_per_second", "parameters", "flops_per_token", "context")
_NUMBER_OR_NONE = int | float | None
_KINDS: dict[str, Any] = {"choices": dict, "data": dict, "metrics": dict, "overrides": list, "lengths": list}
_KINDS |= {"ran": dict, "evals": dict, "origin": dict, "unit": str, "status": str, "config_hash": str}
_KINDS |= {"job": str, "seed": int, "steps": int, "skipped_steps": int, **dict.fromkeys(_NUMBERS, int | float)}
_ITEMS: dict[str, Any] = {"overrides": str, "lengths": dict, "metrics": _NUMBER_OR_NONE}
