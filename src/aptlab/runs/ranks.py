"""Which process of a distributed run this is, and the folder name that all of them agree on."""

from __future__ import annotations

import hashlib
import os
import re
from datetime import UTC, datetime
from pathlib import Path

FOLDER_VARIABLE = "APTLAB_RUN_DIR"
_INTERACTIVE = ("bash", "interactive")
_asked: dict[str, int] = {}


def get_process_rank() -> int:
    """The number of this process in its run, from the environment; 0 outside any launcher."""
    names = ["RANK", "LOCAL_RANK"]
    if count_slurm_tasks() > 1:
        names.insert(1, "SLURM_PROCID")
    for name in names:
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name]) or int(name == "LOCAL_RANK" and _number("NODE_RANK") > 0)
    return 0


def get_local_rank() -> int:
    """The number of this process among those of its run on this host; 0 outside any launcher."""
    return _number("LOCAL_RANK") or (_number("SLURM_LOCALID") if count_slurm_tasks() > 1 else 0)


def count_slurm_tasks() -> int:
    """Processes that SLURM started for this job step; 1 in an interactive allocation."""
    if "SLURM_PROCID" not in os.environ or os.environ.get("SLURM_JOB_NAME") in _INTERACTIVE:
        return 1
    return _number("SLURM_STEP_NUM_TASKS") or _number("SLURM_NTASKS") or 1


def make_shared_name(job: str) -> Path | None:
    """`<date>/<time>-<hex>` that is the same in every process of one torchrun or SLURM job, or None.

    The time (UTC) is the start of the job: SLURM's own record, else the start of the launching
    process. Over several nodes with neither, the name is `id-<hex>`, from the id of the job alone.
    """
    torchrun = os.environ.get("TORCHELASTIC_RUN_ID")
    slurm = os.environ.get("SLURM_JOB_ID") if count_slurm_tasks() > 1 else None
    if not torchrun and not slurm:
        return None
    parts = [torchrun or "", slurm or "", os.environ.get("SLURM_STEP_ID", ""), job]
    parts += [os.environ.get(name, "") for name in ("MASTER_ADDR", "MASTER_PORT")]
    nodes = max(_number("GROUP_WORLD_SIZE"), _number("SLURM_STEP_NUM_NODES"), _number("SLURM_NNODES"), 1)
    start = _number("SLURM_JOB_START_TIME") or (_parent_start() if nodes == 1 else None)
    parts.append(f"{os.getppid()}@{start}" if nodes == 1 else str(start))
    identity = "|".join(parts)
    _asked[identity] = _asked.get(identity, 0) + 1
    code = hashlib.sha256(f"{identity}|{_asked[identity]}".encode()).hexdigest()[:8]
    if start is None:
        return Path(f"id-{code}")
    moment = datetime.fromtimestamp(start, UTC)
    return Path(f"{moment:%Y-%m-%d}") / f"{moment:%H%M%S}-{code}"


def _number(name: str) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdigit() else 0


def _parent_start() -> int | None:
    """When the parent process started, in seconds since the epoch; None where /proc is missing."""
    try:
        fields = Path(f"/proc/{os.getppid()}/stat").read_text().rpartition(")")[2].split()
        boot = re.search(r"^btime (\d+)", Path("/proc/stat").read_text(), re.MULTILINE)
        return int(boot[1]) + int(fields[19]) // os.sysconf("SC_CLK_TCK") if boot else None
    except (OSError, ValueError, IndexError):
        return None
