"""The rule that says where a run is tracked; imports neither torch nor wandb."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aptlab.errors import ConfigError, suggest_option
from aptlab.limits import Positive, validate_limits
from aptlab.redact import redact_text, redact_value
from aptlab.runs import ranks

if TYPE_CHECKING:
    from aptlab.loggers.base import RunLogger

MODES = ("none", "auto", "online", "offline")


@dataclass(frozen=True, kw_only=True)
class Tracking:
    """metrics.csv always; W&B beside it as `mode` says.

    none: never. auto: for who is logged in. online: online if logged in and the server answers within
    `timeout` seconds, else offline with one line that says why. offline: no network at all. A server never
    holds training up for more than ten seconds and nothing of it stops a run. `base_url` null means W&B's own choice
    (WANDB_BASE_URL, its settings, its default); `project` and `entity` null mean WANDB_PROJECT and
    WANDB_ENTITY, else `aptlab` and the user's own; `stats` also records the load of the machine.
    """

    mode: str = "auto"
    project: str | None = None
    entity: str | None = None
    tags: Sequence[str] = ()
    group: str | None = None
    base_url: str | None = None
    timeout: Positive = 5.0
    stats: bool = False

    def __post_init__(self) -> None:
        validate_limits(self)
        if self.mode not in MODES:
            raise ConfigError(f"mode={self.mode} is not a way of tracking{suggest_option(self.mode, MODES)}")
        if self.timeout > 6:
            raise ConfigError(f"timeout={self.timeout:g} would hold up training; at most 6 seconds")
        if isinstance(self.tags, str):
            raise ConfigError(f"tags={self.tags} is one word; write tags=[{self.tags}]")
        if self.base_url is not None and not self.base_url.startswith(("http://", "https://")):
            raise ConfigError(f"base_url={self.base_url} is no address; write https://{self.base_url}")

    def make(
        self,
        folder: str | os.PathLike[str],
        *,
        resume_id: str | None = None,
        config: Mapping[str, Any] | None = None,
        name: str | None = None,
    ) -> list[RunLogger]:
        """The loggers of one run, metrics.csv first; on ranks other than zero that is the only one.

        `resume_id` is the W&B id of the run that is continued, from its checkpoint; `config` is logged
        redacted; `name` is the run's title, by default the folder's name.
        """
        from aptlab.loggers.metrics import CSVMetrics

        metrics = CSVMetrics(folder)
        metrics.begin()
        loggers: list[RunLogger] = [metrics]
        if self.mode != "none" and ranks.get_process_rank() == 0:
            from aptlab.loggers.wandb_run import WandbRun

            run = WandbRun.start(
                Path(folder),
                self._describe(name or Path(folder).name, config),
                mode=self.mode,
                base_url=self.base_url,
                timeout=self.timeout,
                stats=self.stats,
                resume_id=resume_id,
            )
            loggers += [run] if run is not None else []
        return loggers

    def _describe(self, name: str, config: Mapping[str, Any] | None) -> dict[str, Any]:
        """The arguments of `wandb.init` that name and describe the run, redacted."""
        return {
            "project": self.project or os.environ.get("WANDB_PROJECT") or "aptlab",
            "entity": self.entity or os.environ.get("WANDB_ENTITY"),
            "group": self.group or os.environ.get("WANDB_RUN_GROUP"),
            "tags": list(self.tags) or None,
            "name": redact_text(name),
            "config": redact_value(dict(config or {})),
        }
