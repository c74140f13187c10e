"""A place for the campaigns that ask what a run says at its end: a run takes a second or two, by `engine`."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.fault_campaigns.compare import differences, file_state
from benchmarks.fault_campaigns.engine import start_command

STEPS = 10
WORDS = ("size=debug", "trainer=debug", f"trainer.max_steps={STEPS}", "logger=csv", "device=cpu", "context=32")
WORDS += ("data.batch=4", "data.val_batches=2", "data.split.val_fraction=0.3", "callbacks.checkpoints.every=3")
WORDS += ("validate.every=5", "evals.lengths=null", "evals.sample.tokens=4")
ALONE = {"OMP_NUM_THREADS": "1"}


@dataclass
class Attempt:
    """A run that was started: its folder, exit code as a shell tells it, and what it printed."""

    folder: Path
    code: int
    log: str

    @property
    def traceback(self) -> bool:
        """Whether a traceback was shown, of the command or of the logging."""
        return "Traceback" in self.log or "Logging error" in self.log

    @property
    def last_line(self) -> str:
        """The last line that was printed."""
        lines = self.log.strip().splitlines()
        return lines[-1] if lines else ""

    @property
    def status(self) -> str | None:
        """What result.json says, None where there is none."""
        path = self.folder / "result.json"
        return json.loads(path.read_text())["status"] if path.is_file() else None

    @property
    def saved(self) -> int | None:
        """The step of the newest checkpoint that is whole to the bit, None where there is none."""
        return find_saved_step(self.folder)


def find_saved_step(folder: Path) -> int | None:
    """The step of the newest checkpoint of a run that is whole to the bit, None where there is none."""
    from aptlab.checkpoint import is_valid
    from aptlab.checkpoint.find import list_checkpoints
    from aptlab.checkpoint.manifest import parse_checkpoint_step

    files = [path for path in list_checkpoints(folder / "checkpoints") if is_valid(path)]
    return parse_checkpoint_step(files[-1]) if files else None


@dataclass
class Workshop:
    """A place for the text, the token cache, the logs and the run that nothing happened to."""

    root: Path
    number: int = field(default=0)

    def __post_init__(self) -> None:
        source = random.Random(0)
        lines = [" ".join(f"word{source.randrange(40)}" for _ in range(40)) for _ in range(30)]
        (self.root / "texts.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
        self.whole = self.start(self.root / "whole")
        assert self.whole.code == 0, self.whole.log

    def start(self, folder: Path, *words: str, fault: str | None = None, watch: Callable[[], None] | None = None):
        """A new run in this folder; `watch` is called when the child stops itself, before it is sent on."""
        data = (f"data.files={self.root}/texts.jsonl", f"data.cache={self.root}/cache")
        return self.train(folder, *WORDS, *data, f"run_dir={folder}", *words, fault=fault, watch=watch)

    def resume(self, folder: Path) -> Attempt:
        """What the message says: go on with the run. Places are not taken from a checkpoint, so the cache is named."""
        return self.train(folder, *self.list_resume_words(folder))

    def list_resume_words(self, folder: Path) -> tuple[str, str]:
        """The words of the command that goes on with a run."""
        return f"ckpt={folder}", f"data.cache={self.root}/cache"

    def train(
        self, folder: Path, *words: str, fault: str | None = None, watch: Callable[[], None] | None = None
    ) -> Attempt:
        """`aptlab train`; `watch` as in `start`."""
        self.number += 1
        command = start_command("train", *words, out=self.root / f"log-{self.number}.txt", fault=fault, env=ALONE)
        ended = command.wait(watch=watch)
        return Attempt(folder, ended.code, ended.text)

    def ends_as_whole(self, folder: Path) -> bool:
        """Whether the last weights and the optimizer's state equal those of the unbroken run to the bit."""
        from aptlab.checkpoint import find_checkpoint

        mine, theirs = (file_state(find_checkpoint(path)) for path in (folder, self.whole.folder))
        return differences(mine, theirs) == []


def count_failures(problems: list[list[str]]) -> tuple[int, str]:
    """How many tries held, and the first failures in words."""
    failed = [", ".join(found) for found in problems if found]
    return len(problems) - len(failed), "; ".join(failed[:3])
