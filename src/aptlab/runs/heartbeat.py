"""Which rank of a run has stopped, judged from what all of them say of themselves about once a second. No torch.

Every rank sends a beat from a thread of its own, so that a rank which compiles, validates or saves for an hour goes on
beating, and one that is stopped, swapped out, dead or cut off does not. The rule:

1. silent: no new beat for `silent` seconds is told, for `end` seconds it ends the run.
2. stuck: every rank beats, some wait in a collective, and the rest do nothing: no batch begun and no CPU used. The same
   limits. A rank that computes is left alone, as it may compile: there the process group's own timeout is the limit.
3. deadlock: every rank waits in a collective. The same limits.
4. A rank in a phase that may take its time (start, first batch, save) is never stuck; it can be silent.
5. Once a rank was asked to stop by a signal, `HURRY` is the limit.

Ages are measured by whoever judges, on a clock that stands still while the judge itself was stopped. Rank 0 judges all
ranks and tells its verdict; the others judge rank 0 alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field

HURRY = (5.0, 10.0)  # seconds, in place of (silent, end)


@dataclass(frozen=True, kw_only=True)
class Beat:
    """What a rank says of itself.

    count    grows with every beat
    marks    grows with every place that its main thread comes to
    place    where that is, as "the batch of step 5"
    wait     the collective that the main thread is in, as "all_reduce (stop.py:143)"; "" for none
    idle     whether the process has used no CPU since the beat before
    patient  whether the place may take its time
    signal   number of a signal that asked it to stop; 0 for none
    done     whether it has left the run in peace
    """

    count: int
    marks: int = 0
    place: str = "the start"
    wait: str = ""
    idle: bool = False
    patient: bool = True
    signal: int = 0
    done: bool = False
    host: str = ""
    pid: int = 0
    born: str = ""  # start of the process in the system's own count: a number of a process is used again

    def encode(self) -> str:
        """The beat as text."""
        return json.dumps(asdict(self))

    @classmethod
    def decode(cls, text: str) -> Beat:
        """The beat of a text; ValueError or TypeError for one that is none."""
        return cls(**json.loads(text))

    def describe_process(self) -> str:
        """`process 4242 on host`"""
        return f"process {self.pid} on {self.host}"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Ranks that have stopped: which, for how many seconds, what is wrong in words.

    limit  seconds after which the run has to end
    ends   whether that time has come
    """

    ranks: tuple[int, ...]
    age: float
    text: str
    limit: float
    ends: bool


@dataclass
class Record:
    """The last beat of a rank, when it came, and when its main thread was last seen to do something."""

    beat: Beat
    fresh: float
    moved: float


@dataclass(kw_only=True)
class RankRule:
    """The rule of the module's first lines, fed with beats and times.

    silent, end  seconds
    ranks        that this judge hears; of others nothing is said
    """

    silent: float
    end: float
    ranks: tuple[int, ...]
    records: dict[int, Record] = field(default_factory=dict)
    _asked: float | None = None  # when a stop signal was first seen

    def hear(self, rank: int, beat: Beat, now: float) -> None:
        """Take in what is known of a rank; the same beat again is no sign of life."""
        old = self.records.get(rank)
        if old is None:
            self.records[rank] = Record(beat, now, now)
        elif beat.count != old.beat.count:
            last = old.beat
            moved = (beat.marks, beat.wait) != (last.marks, last.wait)
            moved = moved or beat.patient or (not beat.wait and not beat.idle)
            self.records[rank] = Record(beat, now, now if moved else old.moved)
        if beat.signal and self._asked is None:
            self._asked = now

    def find_problem(self, now: float) -> Finding | None:
        """The ranks that keep the others waiting for `silent` seconds or more, or None."""
        return self._find_silent(now) or self._find_still(now)

    def _limits(self, now: float) -> tuple[float, float]:
        hurried = self._asked is not None and now - self._asked >= min(HURRY[0], self.silent) / 2
        return (min(HURRY[0], self.silent), min(HURRY[1], self.end)) if hurried else (self.silent, self.end)

    def _find_silent(self, now: float) -> Finding | None:
        silent, end = self._limits(now)
        ages = {rank: now - one.fresh for rank, one in self.records.items() if not one.beat.done}
        late = {rank: age for rank, age in ages.items() if age >= silent}
        if not late:
            return None
        age = max(late.values())
        waits = self._describe_waiting(rank for rank in ages if rank not in late)
        names = ", ".join(self._describe_silent(rank) for rank in sorted(late))
        verb = "has" if len(late) == 1 else "have"
        text = f"{names} {verb} not answered for {age:.0f} s{waits}"
        return Finding(ranks=tuple(sorted(late)), age=age, text=text, limit=end, ends=age >= end)

    def _find_still(self, now: float) -> Finding | None:
        silent, end = self._limits(now)
        if len(self.ranks) < 2 or any(rank not in self.records for rank in self.ranks):
            return None
        if any(one.beat.done for one in self.records.values()):
            return None
        working = [rank for rank, one in self.records.items() if not one.beat.wait]
        if len(working) == len(self.records):
            return None  # nobody waits for anybody
        age = now - max(one.moved for one in self.records.values())
        if age < silent:
            return None
        if working:
            names = ", ".join(f"rank {rank} in {self.records[rank].beat.place}" for rank in sorted(working))
            rest = self._describe_waiting(rank for rank in self.records if rank not in working)
            text = f"{names} has done nothing for {age:.0f} s{rest}"
        else:
            text = f"all ranks have waited for each other for {age:.0f} s{self._describe_waiting(self.records)}"
        return Finding(ranks=tuple(sorted(working)), age=age, text=text, limit=end, ends=age >= end)

    def _describe_silent(self, rank: int) -> str:
        beat = self.records[rank].beat
        return f"rank {rank} ({beat.describe_process()}), last seen in {beat.place},"

    def _describe_waiting(self, ranks: Iterable[int]) -> str:
        waits = {rank: self.records[rank].beat.wait for rank in ranks}
        shown = [f"rank {rank} in {wait}" for rank, wait in sorted(waits.items()) if wait]
        more = f" and {len(shown) - 3} more" if len(shown) > 3 else ""
        return f"; waiting: {', '.join(shown[:3])}{more}" if shown else ""


class AwakeClock:
    """Seconds in which this process was awake: a gap between two looks counts as `most` seconds at most."""

    def __init__(self, *, most: float) -> None:
        self.now, self._most = 0.0, most
        self._last: float | None = None

    def advance(self, time: float) -> float:
        """Go on to a time of the monotonic clock; returns the new reading."""
        if self._last is not None:
            self.now += min(max(time - self._last, 0.0), self._most)
        self._last = time
        return self.now
