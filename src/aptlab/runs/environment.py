"""What a run ran on: versions, machine, commit and command line, without importing any of them."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aptlab.redact import redact_overrides, redact_text
from aptlab.version import __version__

PACKAGES = ("torch", "lightning", "hydra-core", "omegaconf", "torchmetrics", "wandb", "triton")
PACKAGES += ("bitsandbytes", "tokenizers", "numpy")


def collect_environment(*, seed: int | None = None, hostname: bool = False) -> dict[str, Any]:
    """The record in environment.json; memory in bytes, start in UTC. Never fails, takes well under 1 s.

    What cannot be found out is null. The host's name is recorded only if asked for.
    """
    record: dict[str, Any] = {
        "aptlab": __version__,
        "python": platform.python_version(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": seed,
        "command": _command(),
        "git": read_git_state(),
        "machine": describe_machine(),
        "packages": {name: _version(name) for name in PACKAGES},
    }
    if hostname:
        record["hostname"] = platform.node()
    return record


def describe_machine() -> dict[str, Any]:
    """Kind of machine: system, processor, cores this process may use, memory, GPU names."""
    return {
        "platform": platform.platform(),
        "kind": platform.machine(),
        "cpu": _cpu(),
        "cores": _cores(),
        "memory_bytes": _memory(),
        "gpus": _gpus(),
    }


def read_git_state(folder: str | Path = ".") -> dict[str, Any] | None:
    """Commit of the repository around a folder and whether tracked files differ from it, or None."""
    commit = _git("rev-parse", "HEAD", folder=folder)
    if not commit:
        return None
    changes = _git("status", "--porcelain", "--untracked-files=no", folder=folder)
    return {"commit": commit, "dirty": None if changes is None else bool(changes)}


def _git(*words: str, folder: str | Path) -> str | None:
    """One question to git, answered within two seconds or not at all; runs no hook of the repository."""
    command = ["git", "-c", "core.fsmonitor=false", "-C", str(folder), *words]
    quiet = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=2,
            env=quiet,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _command() -> list[str]:
    program = os.path.basename(sys.argv[0]) if sys.argv else ""
    return [program, *(redact_text(word) for word in redact_overrides(sys.argv[1:]))]


def _version(name: str) -> str | None:
    from importlib import metadata  # brings the mail parser along, which a check does without

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _cpu() -> str | None:
    text = _read("/proc/cpuinfo") or ""
    found = re.search(r"^(?:model name|Hardware|cpu)\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.processor() or None


def _cores() -> int | None:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count()


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def _gpus() -> list[str]:
    """Names of the GPUs: from torch if it already uses them, else from the driver; starts neither."""
    torch = sys.modules.get("torch")
    try:
        if torch is not None and torch.cuda.is_initialized():
            return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        listed = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    except (OSError, RuntimeError, AttributeError):
        return []
    models = [re.search(r"^Model:\s*(.+)$", _read(path) or "", re.MULTILINE) for path in listed]
    return [model[1].strip() for model in models if model]


def _read(path: str | Path) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
