"""The check of every job of a sweep before the first is started."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from aptlab.errors import AptlabError, ConfigError
from aptlab.redact import redact_overrides
from aptlab.shown import count_nouns
from aptlab.sweep.job import SweepJob, find_varied_overrides, hash_experiment
from aptlab.sweep.plan import ComposeJob

SHOWN = 12  # problems in one message


def check_jobs(jobs: Sequence[Sequence[str]], compose: ComposeJob) -> tuple[list[SweepJob], Any]:
    """Compose every job; returns the distinct ones and the configuration of the first.

    Raises ConfigError naming each problem once, with the jobs that have it.
    """
    varied = find_varied_overrides(jobs)
    problems: dict[str, list[str]] = {}
    found: dict[str, SweepJob] = {}
    configs = []
    for overrides, differing in zip(jobs, varied, strict=True):
        try:
            config = compose(list(overrides))
            composed = config.hash()
            key = hash_experiment(overrides, composed)
        except AptlabError as error:
            name = ",".join(redact_overrides(differing))
            for line in _list_problems(str(error)):
                problems.setdefault(line, []).append(name)
            continue
        configs.append(config)
        found.setdefault(key, SweepJob(tuple(overrides), key, differing, len(found), composed))
    if problems:
        raise ConfigError(_format_problems(problems, len(jobs)))
    homes = {(str(config.cfg.job), str(config.cfg.paths.root)) for config in configs}
    if len(homes) > 1:
        raise ConfigError("job and paths.root say where a sweep is kept; give each of them one value")
    return list(found.values()), configs[0]


def _list_problems(message: str) -> Iterable[str]:
    """The problems in a message, without the line that announces them."""
    lines = [line for line in message.splitlines() if line.strip()]
    return lines[1:] if len(lines) > 1 and lines[0].endswith(":") else lines


def _format_problems(problems: dict[str, list[str]], total: int) -> str:
    """One line per problem, with the first two jobs that have it unless all do."""
    bad = len({name for names in problems.values() for name in names})
    lines = [f"{bad:,} of {count_nouns(total, 'job')} cannot run; nothing was started"]
    for message, names in list(problems.items())[:SHOWN]:
        more = f" and {len(names) - 2} more" if len(names) > 2 else ""
        where = "" if len(names) == total else f"  [{', '.join(names[:2])}{more}]"
        lines.append(f"{message}{where}")
    if len(problems) > SHOWN:
        lines.append(f"… and {len(problems) - SHOWN} more problems")
    return "\n".join(lines)
