"""Training speed beside a plain PyTorch loop of the same model and Hugging Face's LlamaForCausalLM in its Trainer.

Every arm trains the same shape on the same rows with fused AdamW and a gradient clip of 1; the arms take turns in one
process, and each turn's first steps (compilation, caches) are not timed. `aptlab` is the whole of it: Lightning's
Trainer with every default callback and the CSV logger.

    python benchmarks/train_speed.py                                      tiny model on the CPU
    python benchmarks/train_speed.py --size 124m --context 1024 --device cuda --precision bf16 --compile
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from aptlab.config import build, compose
from aptlab.data.loader import RowLoader
from aptlab.models.cost import estimate_cost
from aptlab.runs import quiet_lightning
from common import table, write

WARM = 5


class Case:
    """One shape, device and precision, and the rows that all arms train on."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.config = compose(
            "train",
            [
                f"size={args.size}",
                f"context={args.context}",
                f"data.batch={args.batch}",
                f"device={args.device}",
                f"compile={str(args.compile).lower()}",
                "precision=" + {"fp32": "32-true", "bf16": "bf16-mixed"}[args.precision],
                "logger=csv",
                f"trainer.max_steps={WARM + args.steps}",
            ],
        )
        self.data = build(self.config.cfg.data)
        self.config.cfg.vocab = args.vocab or self.data.vocab_size
        self.data.setup()

    def loader(self) -> RowLoader:
        return self.data.train_dataloader()

    def batches(self) -> Iterator[dict[str, torch.Tensor]]:
        moved = ({k: v.to(self.args.device, non_blocking=True) for k, v in batch.items()} for batch in self.loader())
        return itertools.islice(moved, WARM + self.args.steps)

    def autocast(self) -> Any:
        return torch.autocast(self.args.device, torch.bfloat16, enabled=self.args.precision == "bf16")

    def sync(self) -> None:
        if self.args.device == "cuda":
            torch.cuda.synchronize()


def plain(case: Case) -> float:
    """Seconds of the timed steps in a bare loop over aptlab's own network."""
    torch.manual_seed(0)
    net = build(case.config.cfg.model).to(case.args.device)
    if case.args.compile:
        net.compile()
    return loop(case, net, lambda batch: net(batch["tokens"]).logits)


def plain_llama(case: Case) -> float:
    net = llama(case).to(case.args.device)
    if case.args.compile:
        net.compile()
    return loop(case, net, lambda batch: net(input_ids=batch["tokens"], use_cache=False).logits)


def loop(case: Case, net: torch.nn.Module, logits: Callable[[dict[str, torch.Tensor]], torch.Tensor]) -> float:
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    started = 0.0
    for step, batch in enumerate(case.batches()):
        if step == WARM:
            case.sync()
            started = time.perf_counter()
        with case.autocast():
            out = logits(batch).float().flatten(0, 1)
            loss = torch.nn.functional.cross_entropy(out, batch["targets"].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    case.sync()
    return time.perf_counter() - started


def aptlab(case: Case) -> float:
    """Seconds of the timed steps under Lightning with the default callbacks."""
    from lightning.pytorch import Callback

    from aptlab.runs import RunFolder
    from aptlab.training.assemble import assemble_parts, open_run
    from aptlab.training.plan import TrainPlan

    class Clock(Callback):
        started = seconds = 0.0

        def on_train_batch_end(self, trainer: Any, *rest: Any) -> None:
            if trainer.global_step == WARM:
                case.sync()
                self.started = time.perf_counter()
            elif trainer.global_step == trainer.max_steps:
                case.sync()
                self.seconds = time.perf_counter() - self.started

    case.config.cfg.validate.every = 10**6
    case.config.cfg.evals = None
    case.config.cfg.callbacks.checkpoints = None
    with tempfile.TemporaryDirectory() as root, RunFolder.create(run_dir=Path(root) / "run") as folder:
        session = open_run(assemble_parts(TrainPlan(case.config)), folder)
        clock = Clock()
        session.trainer.callbacks.append(clock)  # type: ignore[attr-defined]
        session.trainer.limit_val_batches = 0
        session.trainer.fit(session.task, datamodule=session.data)
    return clock.seconds


def llama(case: Case) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = build(case.config.cfg.size)
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=case.config.cfg.vocab,
            hidden_size=shape.dim,
            intermediate_size=shape.hidden,
            num_hidden_layers=shape.depth,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.kv_heads,
            max_position_embeddings=case.args.context,
            tie_word_embeddings=True,
            attn_implementation="sdpa",  # pyright: ignore[reportCallIssue]
        )
    )


def hf_trainer(case: Case) -> float:
    """Seconds of the timed steps in transformers.Trainer, on the same rows, logging every ten steps."""
    from transformers import Trainer, TrainerCallback, TrainingArguments

    class Rows(torch.utils.data.IterableDataset):
        def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
            for batch in case.loader():
                for row, labels in zip(batch["tokens"], batch["targets"], strict=True):
                    yield {"input_ids": row, "labels": labels, "shift_labels": labels}

    class Clock(TrainerCallback):
        started = seconds = 0.0

        def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            if state.global_step == WARM:
                case.sync()
                self.started = time.perf_counter()
            elif state.global_step == state.max_steps:
                case.sync()
                self.seconds = time.perf_counter() - self.started

    clock = Clock()
    with tempfile.TemporaryDirectory() as root:
        settings = TrainingArguments(
            output_dir=root,
            max_steps=WARM + case.args.steps,
            per_device_train_batch_size=case.args.batch,
            learning_rate=1e-3,
            weight_decay=0.1,
            max_grad_norm=1.0,
            optim="adamw_torch_fused",
            bf16=case.args.precision == "bf16",
            use_cpu=case.args.device == "cpu",
            torch_compile=case.args.compile,
            logging_steps=10,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            dataloader_pin_memory=case.args.device == "cuda",
        )
        Trainer(model=llama(case), args=settings, train_dataset=Rows(), callbacks=[clock]).train()
    return clock.seconds


ARMS: dict[str, Callable[[Case], float]] = {
    "plain loop, aptlab network": plain,
    "aptlab train": aptlab,
    "plain loop, transformers Llama": plain_llama,
    "transformers Trainer, Llama": hf_trainer,
}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="tiny")
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=40, help="timed steps of each turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--vocab", type=int, default=None, help="rows of the embedding; default: the tokenizer's")
    parser.add_argument("--arms", default=None, help="comma-separated numbers of the arms, default all")
    parser.add_argument("--out", default=None, help="name of the result file")
    return parser.parse_args()


def main() -> None:
    args = parse()
    quiet_lightning()
    case = Case(args)
    names = list(ARMS) if args.arms is None else [list(ARMS)[int(i)] for i in args.arms.split(",")]
    times: dict[str, list[float]] = {name: [] for name in names}
    for round_ in range(args.rounds):
        for name in names if round_ % 2 == 0 else reversed(names):
            times[name].append(ARMS[name](case))
            if args.device == "cuda":
                torch.cuda.empty_cache()
    report(args, case, times)


def report(args: argparse.Namespace, case: Case, times: dict[str, list[float]]) -> None:
    tokens = args.steps * args.batch * args.context
    price = estimate_cost(build(case.config.cfg.model), args.context)
    first = next(iter(times))
    rows = []
    for name, seconds in times.items():
        ratio = statistics.median(a / b for a, b in zip(times[first], seconds, strict=True))
        speed = tokens / statistics.median(seconds)
        rows.append(
            (
                name,
                f"{speed:,.0f}",
                f"{tokens / max(seconds):,.0f} to {tokens / min(seconds):,.0f}",
                f"{ratio:.3f}",
                f"{speed * price.training / 1e12:.3g}",
            )
        )
    head = ["arm", "tokens/s, median", "slowest to fastest round", "ratio to the first arm", "TFLOP/s"]
    body = (
        f"size={args.size} ({price.parameters:,} parameters), {args.batch} x {args.context} tokens a step, "
        f"{args.precision}{', compiled' if args.compile else ''}, {args.device}, {torch.get_num_threads()} threads; "
        f"{args.steps} timed steps a turn, {args.rounds} rounds in alternating order. The ratio is the median over "
        "rounds of the paired ratio of speeds.\n\n" + table(head, rows)
    )
    name = args.out or f"train_speed_{args.device}_{args.size}"
    write(name, "Training speed", body, "aptlab", "torch", "lightning", "transformers", "accelerate")


if __name__ == "__main__":
    main()
