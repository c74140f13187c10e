"""Where the ranks of a run meet beside their process group: a store that answers while a collective blocks.

It is the server that the process group begins with (MASTER_ADDR, MASTER_PORT), over a connection of its own and under a
name of its own. With torchrun the server is in the launcher, else in rank 0: torch lets several stores of one process
share a port (`multi_tenant`), so that rank 0 can open it before there is a process group.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from aptlab.errors import ConfigError

if TYPE_CHECKING:
    from torch.distributed import Store

PREFIX = "aptlab-watch"
QUIET = "TORCH_CPP_LOG_LEVEL"  # a lost connection is told in one line; torch's own warning is a C++ stack


@dataclass(frozen=True, kw_only=True)
class Meeting:
    """Address of the store, this process's rank, and which run of the process it is (each has texts of its own)."""

    host: str
    port: int
    rank: int
    run: int = 0

    @property
    def apart(self) -> bool:
        """Whether the store is in the launcher."""
        return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"  # as torch.distributed.rendezvous reads it

    @property
    def name(self) -> str:
        """A restart by torchrun begins with empty texts."""
        return f"{PREFIX}/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/{self.run}"


class MeetingStore:
    """Texts by key at a meeting. It is connected at the first use, which waits for the server."""

    def __init__(self, meeting: Meeting, *, seconds: float = 1800.0) -> None:
        self.meeting, self.seconds = meeting, seconds
        self._store: Store | None = None
        self._known: set[str] = set()
        self._lock = threading.Lock()

    def open(self) -> Store:
        """The connection. In the rank that serves it, ConfigError if the port is in use."""
        with self._lock:
            if self._store is None:
                self._store = self._connect()
            return self._store

    def _connect(self) -> Store:
        from torch.distributed import DistNetworkError, PrefixStore, TCPStore

        meeting, serves = self.meeting, self.meeting.rank == 0 and not self.meeting.apart
        try:
            store = TCPStore(
                meeting.host,
                meeting.port,
                is_master=serves,
                wait_for_workers=False,
                multi_tenant=True,
                timeout=timedelta(seconds=self.seconds),
            )
        except DistNetworkError as error:
            if not serves:
                raise
            raise ConfigError(
                f"rank 0 cannot open port {meeting.port} for the other ranks ({str(error).splitlines()[0]}); "
                "set MASTER_PORT to a free one, or leave it out"
            ) from error
        return PrefixStore(meeting.name, store)

    def put(self, key: str, text: str) -> None:
        """Leave a text."""
        self.open().set(key, text)

    def read(self, keys: Sequence[str]) -> dict[str, str]:
        """The texts that are there; the first time each key is asked for by itself."""
        store = self.open()
        self._known |= {key for key in keys if key not in self._known and store.check([key])}
        known = [key for key in keys if key in self._known]
        return {key: text.decode() for key, text in zip(known, store.multi_get(known))} if known else {}
