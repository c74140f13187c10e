"""A process that was started as one rank of several: it leaves when its launcher has gone. No torch."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator

from aptlab.runs.notice import flush_outputs, write_notice
from aptlab.runs.ranks import count_slurm_tasks, get_process_rank

LAUNCHER_VARIABLE = "APTLAB_LAUNCHER"  # process number of the rank 0 that starts ranks, for those that it starts
PAUSE = 0.5  # seconds between looks at the parent
AFTER = 10.0  # seconds in which the watch of the ranks may say more than this thread can


def is_launched_rank() -> bool:
    """Whether a launcher started this process as one of several ranks, from the environment."""
    sizes = (os.environ.get("WORLD_SIZE", ""), str(count_slurm_tasks()))
    several = any(size.isdigit() and int(size) > 1 for size in sizes)
    return several and (any(name in os.environ for name in ("RANK", "LOCAL_RANK")) or count_slurm_tasks() > 1)


def has_launcher() -> bool:
    """Whether the parent process is the launcher: torchrun's agent, or the rank 0 that started this one.

    The parent of any other process may leave in peace, as a shell does after `nohup`.
    """
    return "TORCHELASTIC_RUN_ID" in os.environ or os.environ.get(LAUNCHER_VARIABLE) == str(os.getppid())


@contextlib.contextmanager
def watch_launcher(leave: Callable[[int], object] = os._exit) -> Iterator[None]:
    """End this process when its launcher goes away, from a thread; nothing where no launcher is the parent."""
    if not is_launched_rank() or not has_launcher():
        yield
        return
    parent, over = os.getppid(), threading.Event()

    def look() -> None:
        while os.getppid() == parent:
            if over.wait(PAUSE):
                return
        if over.wait(AFTER):
            return
        write_notice(f"rank {get_process_rank()} leaves: its launcher (process {parent}) has gone away", None)
        flush_outputs()
        leave(1)

    threading.Thread(target=look, name="launcher-watch", daemon=True).start()
    try:
        yield
    finally:
        over.set()
