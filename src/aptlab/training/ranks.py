"""Ranks watch each other while they train, and one that fails before that tells the others why. torch on use."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from aptlab.device.meeting import Meeting, MeetingStore
from aptlab.errors import AptlabError, RankLost
from aptlab.runs.heartbeat import Beat
from aptlab.runs.launched import LAUNCHER_VARIABLE, is_launched_rank
from aptlab.runs.notice import Message, flatten_reason
from aptlab.runs.ranks import count_slurm_tasks, get_process_rank
from aptlab.runs.signals import SignalReceived, Stopped
from aptlab.runs.watch import FAILED

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

ARRIVE = 30.0  # seconds that ranks may start apart: so long a reason waits for them, or for the rank that keeps it
COMMUNICATION = ("gloo", "NCCL", "Connection", "connection", "Socket")  # words of torch's errors that name no kind
_runs: list[bool] = []  # runs of this process, and whether the ranks watch each other in the last one


@contextlib.contextmanager
def watch_ranks(trainer: Trainer) -> Iterator[None]:
    """Let the ranks watch each other inside the block; an error that another rank caused becomes one line about it.

    Nothing happens with one rank, or without the callback `watchdog`.
    """
    from aptlab.callbacks.lookup import find_callbacks
    from aptlab.callbacks.watchdog import Watchdog

    dogs = find_callbacks(trainer, Watchdog)
    if trainer.world_size == 1 or not dogs:
        yield
        return
    if not is_launched_rank():
        os.environ[LAUNCHER_VARIABLE] = str(os.getpid())
    watch = dogs[0].begin(trainer, run=max(len(_runs) - 1, 0))
    if _runs:
        _runs[-1] = True
    try:
        yield
    except BaseException as error:
        raise_cause(error, watch)
        raise
    finally:
        dogs[0].watch = None
        watch.close()


def raise_cause(error: BaseException, watch: Any) -> None:
    """Tell the other ranks of an error of this one; RankLost instead where it is another rank that has gone."""
    code = getattr(error, "exit_code", 1)
    if isinstance(error, AptlabError):
        if code and not is_stop(error):
            watch.report_failure(str(error), code)
        return
    if not isinstance(error, Exception) or not is_communication_error(error):
        watch.report_failure(describe_error(error), code)
        return
    loss = watch.explain_error()
    if loss is None:
        watch.report_failure(describe_error(error), code)
        raise RankLost(f"the connection to another rank was lost: {describe_error(error)}{watch.way_on()}") from error
    raise RankLost("" if loss.told else loss.text, loss.code) from error


def is_stop(error: BaseException) -> bool:
    """Whether a signal ended the run, which all ranks have agreed on."""
    return isinstance(error, Stopped)


def is_communication_error(error: Exception) -> bool:
    """Whether a collective failed, by torch's kinds of error or, where it has none (gloo), by words."""
    from torch.distributed import DistError

    return isinstance(error, DistError) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in COMMUNICATION)
    )


def describe_error(error: BaseException) -> str:
    """The kind of an error and the first line of its message."""
    if isinstance(error, SignalReceived):
        return f"stopped by {error.name}"
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


@contextlib.contextmanager
def report_early_failure() -> Iterator[None]:
    """Tell the other ranks, which wait for this one, why it fails before the ranks watch each other."""
    _runs.append(False)
    launched = is_launched_rank()  # the rank 0 that launches others looks like one of them afterwards
    try:
        yield
    except BaseException as error:
        code = getattr(error, "exit_code", 1)
        if code and launched and not _runs[-1]:
            reason = str(error) if isinstance(error, AptlabError) else describe_error(error)
            with contextlib.suppress(Exception):  # the failure itself is what the user must see
                tell_ranks(reason, code)
        raise


def tell_ranks(reason: str, code: int, *, seconds: float = ARRIVE) -> None:
    """Leave the reason where the other ranks meet; rank 0, whose process holds the store, waits for them to come."""
    meeting, world = find_meeting()
    store = MeetingStore(meeting, seconds=seconds)
    store.put(FAILED, Message(rank=meeting.rank, text=flatten_reason(reason), code=code).encode())
    store.put(f"beat/{meeting.rank}", Beat(count=1, done=True).encode())
    if meeting.rank or meeting.apart:
        return
    keys, deadline = [f"beat/{rank}" for rank in range(1, world)], time.monotonic() + seconds
    while len(store.read(keys)) < len(keys) and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(0.5)  # a rank says that it has come before it reads


def find_meeting() -> tuple[Meeting, int]:
    """Where the ranks of this process's launcher meet, and how many they are, before there is a trainer."""
    rank, run = get_process_rank(), len(_runs) - 1
    host, port = os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT")
    world = int(os.environ.get("WORLD_SIZE") or count_slurm_tasks())
    if not host or not port:
        from lightning.pytorch.plugins.environments import SLURMEnvironment

        slurm = SLURMEnvironment(auto_requeue=False)
        host, port = slurm.main_address, str(slurm.main_port)
    return Meeting(host=host, port=int(port), rank=rank, run=run), world
