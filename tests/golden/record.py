"""Record the losses of ten steps of the debug model, to notice when numbers move: `just golden`, then review the diff.

The text comes from a generator below, so that it is the same on every Python and machine.
"""

from __future__ import annotations

import json
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
LOSSES = HERE / "losses.json"
VARIANTS = {
    "rope=standard smooth=none": ["rope=standard", "smooth=none"],
    "rope=yarn smooth=memory": ["rope=yarn", "smooth=memory"],
}
SETTINGS = ["size=debug", "trainer=debug", "trainer.max_steps=10", "context=64", "device=cpu", "precision=32-true"]
SETTINGS += ["data.split.val_fraction=0.2", "data.batch=8", "seed=0"]
NOTE = "relative tolerance 1e-4; 1e-6 with the same torch and kind of processor"
SYLLABLES = ["ka", "lo", "mi", "ru", "se", "ta", "vo", "ne", "pi", "du"]


def text(documents: int = 60, words: int = 120) -> str:
    """JSON lines of made-up words, from a linear congruential generator (Knuth's MMIX constants)."""
    state, lines = 1, []
    for number in range(documents):
        said = []
        for _ in range(words):
            state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
            high = state >> 40
            said.append(SYLLABLES[high % 10] + SYLLABLES[high // 10 % 7] * (high // 70 % 2))
        lines.append(json.dumps({"text": f"{number}: {' '.join(said)}."}))
    return "\n".join(lines) + "\n"


def losses(overrides: list[str], folder: Path) -> list[float]:
    """The training loss of each of ten steps, through the parts that the train command builds."""
    from lightning.pytorch import Callback

    from aptlab.config import build
    from aptlab.training.assemble import assemble_parts
    from aptlab.training.plan import plan_training

    class Losses(Callback):
        """Keeps the loss of every step."""

        seen: list[float] = []

        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            self.seen.append(float(outputs["loss"]))

    file = folder / "text.jsonl"
    file.write_text(text())
    made = plan_training([*SETTINGS, f"data.files='{file}'", f"data.cache='{folder / 'cache'}'", *overrides])
    parts, kept = assemble_parts(made), Losses()
    kept.seen = []
    nodes = made.config.cfg.callbacks
    callbacks = [kept, *(build(nodes[name]) for name in ("monitor", "smooth_memory", "seed"))]
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = build(made.config.cfg.trainer)(
        **parts.trainer_args,
        **quiet,
        callbacks=callbacks,
        default_root_dir=str(folder),
        enable_model_summary=False,
        check_val_every_n_epoch=None,
    )
    trainer.fit(parts.task, datamodule=parts.data)
    return kept.seen


def machine() -> dict[str, str]:
    """What decides the last digits."""
    import torch

    return {"torch": torch.__version__.partition("+")[0], "processor": platform.machine(), "threads": "1"}


def main() -> int:
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        found = {name: losses(overrides, Path(folder)) for name, overrides in VARIANTS.items()}
    LOSSES.write_text(json.dumps({"note": NOTE, **machine(), "losses": found}, indent=2) + "\n")
    print(LOSSES.read_text(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
