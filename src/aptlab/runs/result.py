"""What a finished run reports: result.json as an object."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aptlab.errors import AptlabError
from aptlab.runs.files import UnsafeFileError, read_file_json

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
        for name, kind in _KINDS.items():
            if name in values and not isinstance(values[name], kind):
                raise AptlabError(f"{name} has the wrong kind: {type(values[name]).__name__}")
        _check_inner(values)
        return cls(**{name: value for name, value in values.items() if name in known})

    @classmethod
    def read(cls, path: str | Path) -> Result:
        """Read result.json (or the folder that holds it); raises AptlabError naming the file."""
        path = Path(path)
        path = path / "result.json" if path.is_dir() else path
        try:
            return cls.from_plain(read_file_json(path))
        except FileNotFoundError:
            raise AptlabError(f"{path.parent} is not a finished run: it has no result.json") from None
        except UnsafeFileError:
            raise
        except (OSError, ValueError) as error:
            raise AptlabError(f"{path} cannot be read: {error}; the run has to be repeated") from error


_NUMBERS = ("steps", "tokens", "seconds", "tokens_per_second", "parameters", "flops_per_token", "context")
_LENGTH = ("multiple", "length")
_KINDS: dict[str, Any] = {"choices": dict, "data": dict, "metrics": dict, "overrides": list, "lengths": list}
_KINDS |= {"ran": dict, "evals": dict, "origin": dict, "unit": str}
_KINDS |= {"job": str, **dict.fromkeys(_NUMBERS, int | float)}


def _check_inner(values: Mapping[str, Any]) -> None:
    """AptlabError for the first number, row or word inside that is none."""
    if isinstance(values["seed"], bool) or not isinstance(values["seed"], int):
        raise AptlabError(f"seed is no whole number: {str(values['seed'])[:40]}")
    for name, value in values.get("metrics", {}).items():
        if isinstance(value, bool) or not isinstance(value, int | float | None):
            raise AptlabError(f"metrics.{name} is no number: {str(value)[:40]}")
    for number, row in enumerate(values.get("lengths", [])):
        if not isinstance(row, Mapping) or not all(isinstance(row.get(key, 0), int | float) for key in _LENGTH):
            raise AptlabError(f"lengths, row {number + 1} holds what is no number")
    if not all(isinstance(word, str) for word in values.get("overrides", [])):
        raise AptlabError("overrides are no list of words")
