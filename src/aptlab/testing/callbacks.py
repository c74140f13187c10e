"""Laws of callbacks, measured in real runs of a few steps."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from aptlab.checkpoint.find import FOLDER, list_checkpoints
from aptlab.checkpoint.io import load_checkpoint
from aptlab.testing.contract import Contract

STEPS, SAVED = 4, 2
SMALL = ("size=debug", "trainer=debug", "device=cpu", "logger=csv", "context=32", "evals=null", "data.batch=4")
TEXTS = [f"Text {number} is long enough to hold some rows of tokens. " * 4 for number in range(60)]


class CallbackContract(Contract):
    """Laws of the callbacks of a run: what they keep is plain values, and a run that is continued ends the same.

    words   overrides that put yours into a run and set what it needs, as `("callbacks=[default,mine]",)`
    clocks  entries of the states that measure time, at any depth, and so differ from run to run

    The laws hold every callback of the run, the configured ones too. What a callback does is for tests of its own.
    """

    words: tuple[str, ...]
    clocks: tuple[str, ...] = ("seconds", "tokens_per_second")

    def test_a_continued_run_ends_with_the_same_weights_and_the_same_states(self) -> None:
        """Where a callback leaves something out of `state_dict`, or draws random numbers, the two runs differ."""
        with tempfile.TemporaryDirectory() as name:
            whole, continued = self._train_twice(Path(name))
        for key in ("state_dict", "optimizer_states", "callbacks"):
            problem = find_difference(whole[key], continued[key], self.clocks)
            assert problem is None, f"{key}{problem} differs: whole run, run continued at step {SAVED}"

    def _train_twice(self, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
        """The last checkpoints of a run, and of its copy that is continued from the middle."""
        import aptlab

        lines = [json.dumps({"text": text}) for text in TEXTS]
        (folder / "texts.jsonl").write_text("\n".join(lines))
        words = [*SMALL, *self.words, f"trainer.max_steps={STEPS}", f"callbacks.checkpoints.every={SAVED}"]
        words += [
            "callbacks.checkpoints.keep=9",
            "validate.every=2",
            "data.val_batches=1",
            f"run_dir={folder / 'whole'}",
        ]
        aptlab.train([*words, f"data.files={folder / 'texts.jsonl'}"])
        shutil.copytree(folder / "whole", folder / "copy")
        middle, *later = list_checkpoints(folder / "copy" / FOLDER)
        for path in later:
            path.unlink()
        aptlab.train([f"ckpt={middle}"])
        whole, copy = (list_checkpoints(folder / name / FOLDER)[-1] for name in ("whole", "copy"))
        return load_checkpoint(whole), load_checkpoint(copy)


def find_difference(first: Any, second: Any, ignored: Sequence[str] = ()) -> str | None:
    """Where two plain values differ, as `.name[0]`; None where they are equal, tensors bit for bit.

    `ignored` are keys of dicts, at any depth.
    """
    if type(first) is not type(second):
        return f" ({type(first).__name__} and {type(second).__name__})"
    if isinstance(first, torch.Tensor):
        return None if torch.equal(first, second) else ""
    if isinstance(first, dict):
        if first.keys() != second.keys():
            return f" (keys {sorted(map(str, first))} and {sorted(map(str, second))})"
        pairs = [(f".{key}", first[key], second[key]) for key in first if key not in ignored]
    elif isinstance(first, list | tuple) and len(first) == len(second):
        pairs = [(f"[{index}]", *pair) for index, pair in enumerate(zip(first, second, strict=True))]
    else:
        return None if first == second else f" ({first!r} and {second!r})"
    found = ((where, find_difference(a, b, ignored)) for where, a, b in pairs)
    return next((f"{where}{inner}" for where, inner in found if inner is not None), None)
