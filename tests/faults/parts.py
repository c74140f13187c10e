"""A small real run (decoder with dropout, text data, all reliability callbacks) for tests that break it."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from benchmarks.fault_campaigns.compare import differences, file_state
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.strategies import DDPStrategy

from aptlab import faults
from aptlab.callbacks import RunContext
from aptlab.callbacks.checkpoints import Checkpoints
from aptlab.callbacks.guard import NonFiniteGuard
from aptlab.callbacks.monitor import Monitor
from aptlab.callbacks.seeding import StatelessSeed
from aptlab.callbacks.stop import GracefulStop
from aptlab.checkpoint import AtomicIO, find_checkpoint
from aptlab.data.module import TextData
from aptlab.data.rows import RowKind
from aptlab.data.sources import TextFiles
from aptlab.data.store.split import Split
from aptlab.data.tokenizers import ByteTokenizer
from aptlab.nn.attention import FullAttention
from aptlab.nn.ffn import SwiGLU
from aptlab.nn.shape import Shape
from aptlab.nn.smooth import Plain
from aptlab.optim import AdamW, Cosine
from aptlab.tasks import LanguageTask
from aptlab.testing.tiny import make_decoder

__all__ = ["Outcome", "Run", "assert_same", "corpus", "differences", "file_state"]
SHAPE = Shape(dim=16, depth=1, heads=2, hidden=24)


def corpus(folder: Path) -> Path:
    """Text for seven training batches of 4 rows of 16 tokens, so that data epochs end within a test."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(10):
        words = " ".join(f"{(number * 31 + i * 7) % 97}" for i in range(20))
        (folder / f"{number}.txt").write_text(words)
    return folder


@dataclass
class Run:
    """One run: its settings, and what is seen while it trains."""

    folder: Path
    steps: int = 12
    accumulate: int = 1
    batch: int = 4
    every: int = 3
    val: int = 4
    precision: Any = "32-true"
    smooth: Any = Plain
    attention: Any = FullAttention
    rows: RowKind | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    callbacks: list[Callback] = field(default_factory=list)
    checkpoints: dict[str, Any] = field(default_factory=dict)
    guard: dict[str, Any] = field(default_factory=dict)

    def train(self, ckpt: Path | None = None) -> Outcome:
        torch.manual_seed(5)
        net = make_decoder(
            SHAPE, vocab=260, ffn=partial(SwiGLU, dropout=0.2), smooth=self.smooth, attention=self.attention
        )
        task = LanguageTask(net, optim=AdamW(lr=1e-2), schedule=Cosine())
        data = TextData(
            TextFiles(files=str(corpus(self.folder.parent / "corpus") / "*.txt")),
            tokenizer=ByteTokenizer(), context=16, batch=self.batch, seed=3, split=Split(0.35, seed=2), val_batches=2,
            rows=self.rows, cache=str(self.folder.parent / "cache"),
        )  # fmt: skip
        if self.rows is not None:
            task.bind_data(data)
        seen = Seen()
        saver = Checkpoints(**({"every": self.every} | self.checkpoints))
        saver.attach(RunContext(folder=self.folder, describe=lambda: {"run_dir": str(self.folder)}))
        smoothing = [] if self.smooth is Plain else [self._memory()]
        settings = {"accelerator": "cpu", "devices": 1, "gradient_clip_val": 1.0} | self.settings
        trainer = Trainer(
            **settings,
            max_steps=self.steps,
            max_epochs=-1,
            accumulate_grad_batches=self.accumulate,
            val_check_interval=self.val * self.accumulate,
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            precision=self.precision,
            logger=False,
            callbacks=[Monitor(every=1), *smoothing, StatelessSeed(0), NonFiniteGuard(**self.guard), saver,
                       GracefulStop(), seen, *self.callbacks],
            plugins=[AtomicIO()],
            default_root_dir=str(self.folder),
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )  # fmt: skip
        outcome = Outcome(trainer, task, data, saver, seen)
        trainer.fit(task, datamodule=data, ckpt_path=str(ckpt) if ckpt else None)
        return outcome

    def _memory(self) -> Callback:
        from aptlab.callbacks.smoothing import SmoothMemory

        return SmoothMemory(every=None)

    def last(self) -> Path:
        return find_checkpoint(self.folder)

    def resume(self) -> Outcome:
        return self.train(self.last())

    def in_child(
        self, break_at: str | None = None, ckpt: Path | None = None, do: Callable[[], None] | None = None
    ) -> int:
        """Train in a forked child with a fault; its exit code as a shell tells it (137 for SIGKILL)."""
        return codes_of([self.start(break_at, ckpt, do)])[0]

    def in_ranks(self, breaks: dict[int, str], ckpt: Path | None = None, **settings: Any) -> list[int]:
        """Train on two CPU ranks (DDP, gloo) started as torchrun starts them; `breaks` are the faults by rank."""
        self.settings = {"devices": 2, "strategy": DDPStrategy(process_group_backend="gloo"), **settings}
        common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
        common |= {"LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "test"}
        pids = []
        for rank in range(2):
            env = common | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            pids.append(self.start(breaks.get(rank), ckpt, partial(os.environ.update, env), name=f"error-{rank}.txt"))
        return codes_of(pids)

    def start(
        self, break_at: str | None, ckpt: Path | None, do: Callable[[], None] | None, name: str = "error.txt"
    ) -> int:
        """Fork; the child trains, writes its error to a file, and leaves."""
        pid = os.fork()
        if pid == 0:
            code = 70
            try:
                faults.reset_faults()
                if break_at:
                    os.environ[faults.VARIABLE] = break_at
                if do:
                    do()
                self.train(ckpt)
                code = 0
            except BaseException as error:
                code = getattr(error, "exit_code", 71)
                (self.folder.parent / name).write_text(f"{type(error).__name__}: {error}")
            finally:
                os._exit(code)
        return pid


def codes_of(pids: list[int]) -> list[int]:
    """Wait for children; exit codes as a shell tells them."""
    statuses = [os.waitpid(pid, 0)[1] for pid in pids]
    return [128 + os.WTERMSIG(s) if os.WIFSIGNALED(s) else os.WEXITSTATUS(s) for s in statuses]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Seen(Callback):
    """Losses by (step, micro-batch), validation losses by step, and sample ids."""

    def __init__(self) -> None:
        self.losses: dict[tuple[int, int], float] = {}
        self.val: dict[int, float] = {}
        self.ids: dict[tuple[int, int], list[int]] = {}
        self.rates: dict[int, float] = {}

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self._key = (trainer.global_step, batch_idx % trainer.accumulate_grad_batches)
        self.ids[self._key] = batch["ids"].tolist()
        self.rates[trainer.global_step] = trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses[self._key] = float(outputs["loss"])

    def on_validation_end(self, trainer, pl_module):
        self.val[trainer.global_step] = float(trainer.callback_metrics["val/loss"])


@dataclass
class Outcome:
    trainer: Trainer
    task: LanguageTask
    data: TextData
    saver: Checkpoints
    seen: Seen

    def state(self) -> dict[str, torch.Tensor]:
        """Every tensor of weights, buffers and optimizer."""
        tensors = {name: value.detach().clone() for name, value in self.task.state_dict().items()}
        for number, state in self.trainer.optimizers[0].state_dict()["state"].items():
            tensors |= {f"optimizer/{number}/{name}": value for name, value in state.items()}
        return tensors


def assert_same(resumed: Outcome, whole: Outcome) -> None:
    """The end is equal to the bit, and so is every loss, learning rate and sample on the way."""
    assert differences(resumed.state(), whole.state()) == []
    for name in ("losses", "ids", "rates", "val"):
        mine, theirs = getattr(resumed.seen, name), getattr(whole.seen, name)
        assert mine == {key: theirs[key] for key in mine}
    last = max(whole.seen.losses)
    assert last in resumed.seen.losses or not resumed.seen.losses
