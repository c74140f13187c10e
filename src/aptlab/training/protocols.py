"""What a run asks of its data. Everything else, such as windows and a tokenizer, only some data has."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from lightning.pytorch import LightningDataModule

from aptlab.errors import ConfigError


class RunData(Protocol):
    """A LightningDataModule that a run can resume on and report.

    Its training loader has no end, and a `state_dict` with "micro_batches" lets a resumed run go on at the next row.

    fingerprint           names the content; another one is other data
    summary()             plain values for result.json, with "name"
    batches_per_epoch(w)  micro-batches of each of w devices in one pass
    check_state(entry)    CheckpointError where the "aptlab" entry of a checkpoint was written on other data
    """

    @property
    def fingerprint(self) -> str: ...
    def summary(self) -> dict[str, Any]: ...
    def batches_per_epoch(self, world: int) -> int: ...
    def check_state(self, state_dict: dict[str, Any]) -> None: ...


@runtime_checkable
class TokenizedData(Protocol):
    """Data made of tokens: a checkpoint takes its tokenizer along, and the vocabulary follows it."""

    @property
    def tokenizer(self) -> Any: ...
    @property
    def vocab_size(self) -> int: ...


@runtime_checkable
class RowData(Protocol):
    """Data whose micro-batches are `batch` rows of `context` units."""

    batch: int
    context: int


@runtime_checkable
class LongRowData(Protocol):
    """Data whose rows may be longer than a context."""

    row_tokens: int


@runtime_checkable
class SegmentedData(Protocol):
    """Data that say how rows are read that are parts of longer texts; None: each row stands alone."""

    @property
    def segment_plan(self) -> Any: ...


@runtime_checkable
class StagedData(Protocol):
    """Data that change at optimizer steps: told before anything else is asked how long the run is."""

    def bind_steps(self, *, total: int, accumulate: int) -> None: ...


def bind_data_steps(data: object, *, total: int, accumulate: int) -> None:
    """Tell data that change at optimizer steps how long the run is; nothing for other data."""
    if isinstance(data, StagedData):
        data.bind_steps(total=total, accumulate=accumulate)


def require_run_data(data: object) -> Any:
    """The data module, which is a `RunData`; ConfigError names what it lacks."""
    if not isinstance(data, LightningDataModule):
        raise ConfigError(f"data: {type(data).__name__} is no LightningDataModule; derive it from one")
    lacking = sorted(find_missing_members(type(data), RunData))
    if lacking:
        raise ConfigError(
            f"data: {type(data).__name__} lacks {', '.join(lacking)}, which a run needs to resume and to report; "
            "see aptlab.training.protocols.RunData"
        )
    return data


def find_missing_members(kind: type, protocol: type) -> set[str]:
    """Members of a protocol that a class does not have; nothing is computed, as a property could take long."""
    return {name for name in vars(protocol) if not name.startswith("_")} - set(dir(kind))
