"""The threads that watch the other ranks while the main one trains, and end the process if they must. No torch."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from subprocess import Popen
from typing import Any, Protocol

from aptlab.runs.heartbeat import AwakeClock, Beat, Finding, RankRule
from aptlab.runs.notice import Message, flatten_reason, flush_outputs, run_briefly, write_notice
from aptlab.runs.process import describe_end, is_gone, kill_process, read_birth, read_wait

TICK = 1.0  # seconds between beats
GRACE = 2.0  # seconds in which the main thread may end by itself once another rank has gone
ASK = 5.0  # seconds in which an error of a collective may find its cause
LATE = 4  # ticks without a beat after which a process is killed where the run ends anyway
LAST = 8.0  # seconds kept of `end` for the end itself
START = "the start"
AT_START = 5.0  # seconds that a signal leaves to a main thread which still waits for the others to come
AT_ONCE = 2.0  # seconds that a second signal leaves to the main thread
FAILED, VERDICT = "failed", "verdict"


class Store(Protocol):
    """Where ranks leave texts for each other; a call may block, or raise RuntimeError, where its server is gone."""

    def put(self, key: str, text: str) -> None:
        """Leave a text."""
        ...

    def read(self, keys: Sequence[str]) -> dict[str, str]:
        """The texts that are there."""
        ...


@dataclass(frozen=True, kw_only=True)
class WatchPlan:
    """What a watch is told once.

    rank, world   of this process
    silent, end   seconds; see `RankRule`
    codes         exit codes by the number of a signal that asks to stop
    speaks        whether this process tells what happens to rank 0; rank 0 tells the rest
    apart         whether the store is in no rank, but in the launcher
    launcher      process number of the parent, where that is what started the ranks; 0 else
    folder        of the run, for log.txt
    """

    rank: int
    world: int
    silent: float
    end: float
    codes: Mapping[int, int]
    speaks: bool = True
    apart: bool = False
    launcher: int = 0
    folder: Path | None = None

    @property
    def tick(self) -> float:
        """Seconds between beats: fewer where the limits are short."""
        return min(TICK, self.silent / 5)


@dataclass(frozen=True, kw_only=True)
class Loss:
    """Another rank that has gone: a line about it, the exit code that follows, and whether it was told already."""

    text: str
    code: int = 1
    told: bool = False


class RankWatch:
    """Two threads: one sends beats and hears the others, which may block; one judges, and never does.

    store     where the ranks meet
    way_on    says which checkpoint is there and how to go on, as "; last valid checkpoint: …"
    children  processes that this one has started as ranks, by rank
    leave     what ends the process, with a code
    """

    def __init__(
        self,
        store: Store,
        plan: WatchPlan,
        *,
        way_on: Callable[[], str] = str,
        children: Callable[[], Mapping[int, Popen[Any]]] = dict,
        leave: Callable[[int], Any] = os._exit,
    ) -> None:
        self.store, self.plan, self.way_on, self.children, self.leave = store, plan, way_on, children, leave
        judged = tuple(range(plan.world)) if plan.rank == 0 else (0,)
        self.rule = RankRule(silent=plan.silent, end=plan.end - min(LAST, plan.end / 3), ranks=judged)
        self.clock = AwakeClock(most=2 * plan.tick)
        self._own = Beat(count=0, host=socket.gethostname(), pid=os.getpid(), born=read_birth(os.getpid()))
        self._where = (0, START, True)  # marks, place, patient: all that a step pays for
        self._main = threading.current_thread().ident
        self._heard: dict[int, Beat] = {}
        self._mail: dict[str, str] = {}
        self._rounds, self._answered = 0, (0, 0.0)  # exchanges with the store; how many there were when, by the clock
        self._lost = self._leaving = self._spoken = self._warned = False
        self._asked: list[tuple[float, int]] = []  # signals that asked to stop: when, and their numbers
        self._gone_since: float | None = None
        self._ending, self._over = threading.Lock(), threading.Event()
        self._threads: list[threading.Thread] = []
        self._pipe: tuple[int, int, int] | None = None  # its ends, and the wakeup descriptor of before

    # The main thread's side

    def start(self) -> None:
        """Begin. In the main thread, also hear signals that Python cannot answer in the middle of a call."""
        if threading.current_thread() is threading.main_thread():
            ends = os.pipe()
            for end in ends:
                os.set_blocking(end, False)
            self._pipe = (*ends, signal.set_wakeup_fd(ends[1], warn_on_full_buffer=False))
        for name, run in (("rank-beats", self._exchange_beats), ("rank-watch", self._judge)):
            thread = threading.Thread(target=run, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def mark(self, place: str, *, patient: bool = False) -> None:
        """The main thread has come to another place; a `patient` one may take its time."""
        self._where = (self._where[0] + 1, place, patient)

    def close(self) -> None:
        """Leave in peace: from now on the others do not miss this rank."""
        self._over.set()
        for thread in self._threads:
            thread.join(2 * self.plan.tick + 1)
        if self._pipe is not None:
            signal.set_wakeup_fd(self._pipe[2])
            for end in self._pipe[:2]:
                os.close(end)
            self._pipe = None
        if self._lost or any(thread.is_alive() for thread in self._threads):
            return
        last = replace(self._own, count=self._rounds + 2, done=True)
        run_briefly(lambda: self.store.put(f"beat/{self.plan.rank}", last.encode()))

    def report_failure(self, reason: str, code: int) -> None:
        """Tell the other ranks why this one ends."""
        self._leaving = True
        message = Message(rank=self.plan.rank, text=flatten_reason(reason), code=code)
        run_briefly(lambda: self.store.put(FAILED, message.encode()))

    def explain_error(self, *, seconds: float = ASK) -> Loss | None:
        """Which rank has gone, where a collective has failed in this one; None if after some seconds none has."""
        self._leaving = True
        deadline = time.monotonic() + seconds
        while (loss := self._find_loss()) is None and time.monotonic() < deadline:
            time.sleep(self.plan.tick / 5)
        if loss is None:
            return None
        if not self._lost:
            time.sleep(1.5 * self.plan.tick)  # a rank that failed has left its reason, which comes with the next beat
            loss = self._find_loss() or loss
        with self._ending:
            told, self._spoken = loss.told or self._spoken or not self.plan.speaks, True
        self._kill(self._list_victims())
        if self.plan.rank == 0:
            verdict = Message(rank=0, text=loss.text, code=loss.code)
            run_briefly(lambda: self.store.put(VERDICT, verdict.encode()))
        return replace(loss, told=told, text=f"{loss.text}{self.way_on()}")

    # The thread that may block

    def _exchange_beats(self) -> None:
        """Say what this rank does and hear what its judge needs, once a tick."""
        ranks, used = self.rule.ranks, time.process_time()
        keys = {f"beat/{rank}": rank for rank in ranks}
        while not self._over.is_set():
            cpu = time.process_time()
            idle, used = cpu - used < self.plan.tick / 20, cpu
            wait = read_wait(self._main, idle=idle)
            asked = self._asked[0][1] if self._asked else 0
            marks, place, patient = self._where
            own = replace(self._own, count=self._rounds + 1, marks=marks, place=place, patient=patient)
            try:
                self.store.put(f"beat/{self.plan.rank}", replace(own, idle=idle, wait=wait, signal=asked).encode())
                found = self.store.read([*keys, FAILED, VERDICT])
            except RuntimeError:  # torch's DistNetworkError: the server has gone
                self._lost = not self._over.is_set()
                return
            for key, rank in keys.items():
                with contextlib.suppress(ValueError, TypeError):
                    self._heard[rank] = Beat.decode(found.pop(key, ""))
            self._mail = found
            self._rounds += 1
            self._over.wait(self.plan.tick)

    # The thread that judges

    def _judge(self) -> None:
        """Look at what is known, twice a tick, until the run ends in peace or has to be ended."""
        while not self._over.wait(self.plan.tick / 2):
            now = self.clock.advance(time.monotonic())
            self._read_signals(now)
            if self._rounds != self._answered[0]:
                self._answered = (self._rounds, now)
            for rank, beat in dict(self._heard).items():
                self.rule.hear(rank, beat, now)
            if not self._leaving:
                self._look_once(now)

    def _look_once(self, now: float) -> None:
        verdict = Message.decode(self._mail.get(VERDICT, ""))
        if verdict is not None and verdict.rank != self.plan.rank:
            self._end_run(verdict)
            return
        loss = self._find_loss()
        if loss is None:
            self._gone_since = None
        elif self._gone_since is None:
            self._gone_since = now
        elif now - self._gone_since >= min(GRACE, self.plan.end / 2):
            message = Message(rank=self.plan.rank, text=f"{loss.text}; the run is ended", code=loss.code)
            self._end_run(message, told=loss.told)
            return
        if len(self._asked) > 1 and now - self._asked[1][0] >= AT_ONCE:
            name = signal.Signals(self._asked[0][1]).name
            self._end_run(Message(rank=self.plan.rank, text=f"stopped at once by a second {name}", code=self._code()))
        elif self._asked and self._waits_at_start() and now - self._asked[0][0] >= min(AT_START, self.plan.end / 2):
            name = signal.Signals(self._asked[0][1]).name
            text = f"stopped by {name} before the first step"
            self._end_run(Message(rank=self.plan.rank, text=text, code=self._code()))
        elif loss is None and self._trusts_ages(now):
            self._act_on(self.rule.find_problem(now))

    def _read_signals(self, now: float) -> None:
        if self._pipe is None:
            return
        with contextlib.suppress(OSError):  # nothing there, or closed meanwhile
            for number in os.read(self._pipe[0], 64):
                if number in self.plan.codes:
                    self._asked.append((now, number))

    def _waits_at_start(self) -> bool:
        return self._where[1] == START and bool(read_wait(self._main, idle=True))

    def _trusts_ages(self, now: float) -> bool:
        """Whether old beats are the fault of the ranks: with a store apart, it may be the store that is silent."""
        return not self.plan.apart or now - self._answered[1] <= 4 * self.plan.tick

    def _find_loss(self) -> Loss | None:
        """A rank that has failed or gone away, or what the judge of all has told about one."""
        verdict = Message.decode(self._mail.get(VERDICT, ""))
        if verdict is not None and verdict.rank != self.plan.rank:
            return Loss(text=verdict.text, code=verdict.code, told=True)
        failed = Message.decode(self._mail.get(FAILED, ""))
        if failed is not None and failed.rank != self.plan.rank:
            told = self.plan.rank != 0 and failed.rank != 0  # rank 0 tells it
            return Loss(text=f"rank {failed.rank} failed: {flatten_reason(failed.text)}", code=failed.code, told=told)
        heard = {rank: beat for rank, beat in dict(self._heard).items() if rank != self.plan.rank and not beat.done}
        for rank, child in self.children().items():
            code, beat = child.poll(), self._heard.get(rank)
            if code and not (beat and beat.done):
                place = f", last seen in {beat.place}," if beat else ""
                return Loss(text=f"rank {rank} (process {child.pid}){place} {describe_end(code)}")
        for rank, beat in heard.items():
            lost = rank == 0 and self._lost and not self.plan.apart
            if lost or (beat.host == self._own.host and is_gone(beat.pid, beat.born)):
                return Loss(text=f"rank {rank} ({beat.describe_process()}), last seen in {beat.place}, has gone away")
        if self._has_lost_launcher():
            zero = self.rule.records.get(0)
            told = self.plan.rank != 0 and zero is not None and self.clock.now - zero.fresh < 2 * self.plan.tick
            return Loss(text=f"its launcher (process {self.plan.launcher}) has gone away", told=told)
        return None

    def _has_lost_launcher(self) -> bool:
        return self.plan.launcher not in (0, os.getppid())

    def _list_victims(self) -> tuple[tuple[str, int, str], ...]:
        """The processes of ranks that send nothing: once the run ends, nothing else would end them."""
        oldest = 0.0 if self._has_lost_launcher() else LATE * self.plan.tick  # without one, all of them have to go
        late = [one for one in self.rule.records.values() if self.clock.now - one.fresh >= oldest]
        return tuple((one.beat.host, one.beat.pid, one.beat.born) for one in late if not one.beat.done)

    def _kill(self, victims: Iterable[tuple[str, int, str]]) -> None:
        for host, pid, born in victims:
            if host == self._own.host:
                kill_process(pid, born)

    def _act_on(self, finding: Finding | None) -> None:
        """Tell what was found once, and end the run when its time has come."""
        if finding is None:
            if self._warned:
                self._speak("all ranks answer again")
            self._warned = False
            return
        text = finding.text
        whole = finding.limit == self.rule.end  # else a signal asks for haste
        limit = f"{self.plan.end:g} s (callbacks.watchdog.end)" if whole else f"{finding.limit:g} s after a signal"
        if self.plan.rank and (wait := read_wait(self._main, idle=True)):
            text = f"{text}; waiting: rank {self.plan.rank} in {wait}"
        if finding.ends:
            text = f"{text}; the limit is {limit}; the run is ended"
            self._end_run(Message(rank=self.plan.rank, text=text, code=self._code(), victims=self._list_victims()))
        elif not self._warned:
            self._warned = True
            self._speak(f"{text}; the run is over by {limit}")

    def _code(self) -> int:
        """The exit code of the signal that asked this rank, or one that it hears, to stop; 1 without one."""
        asked = [number for _, number in self._asked]
        asked += [one.beat.signal for one in self.rule.records.values() if one.beat.signal]
        return self.plan.codes.get(asked[0], 1) if asked else 1

    def _speak(self, text: str) -> None:
        if self.plan.speaks:
            write_notice(text, self.plan.folder)

    # The end

    def _end_run(self, message: Message, *, told: bool = False) -> None:
        """Say why, end the processes that cannot end themselves, and leave: the main thread never comes back."""
        with self._ending:
            if self._over.is_set() or self._leaving:
                return  # the main thread has come back after all
            mine = message.rank == self.plan.rank
            if mine and not told and not self._spoken:
                self._spoken = True
                self._speak(f"{message.text}{self.way_on()}")
            if mine and self.plan.rank == 0:
                run_briefly(lambda: self.store.put(VERDICT, message.encode()))
            self._kill({*message.victims, *self._list_victims()})
            others = [one for rank, one in self.rule.records.items() if rank != self.plan.rank and not one.beat.done]
            if mine and self.plan.rank == 0 and any(self.clock.now - one.fresh < 2 * self.plan.tick for one in others):
                time.sleep(2 * self.plan.tick)  # so that they read why before the store goes with us
            for child in self.children().values():
                child.kill()
            flush_outputs()
            self._over.set()
            self.leave(message.code)
