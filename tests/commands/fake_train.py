"""Stands in for `aptlab train` in tests of sweeps: a run folder in milliseconds, told by FAKE_* variables what to do.

FAKE_FAIL: overrides whose jobs exit with code 3. FAKE_SLEEP: seconds before the end. FAKE_CHECKPOINT: write a valid
checkpoint first. FAKE_NO_RESULT: exit with 0 without a result.json.
"""

import hashlib
import json
import math
import os
import signal
import sys
import time
from pathlib import Path

import yaml

from aptlab.checkpoint.manifest import Manifest, write_manifest
from aptlab.runs import Result, RunFolder


def main(words: list[str]) -> int:
    values = {key: yaml.safe_load(value) for key, _, value in (word.partition("=") for word in words)}
    with RunFolder.create(run_dir=values["run_dir"]) as folder:
        with open(folder / "attempts.txt", "a") as file:
            file.write(json.dumps(words) + "\n")
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        signal.signal(signal.SIGINT, lambda *_: sys.exit(130))
        seed = values.get("seed", 0)
        choices = {"rope": values.get("rope", "standard"), "smooth": values.get("smooth", "none")}
        for name, content in (("config", {"seed": seed}), ("overrides", words), ("choices", choices)):
            (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
        if os.environ.get("FAKE_CHECKPOINT"):
            checkpoint(Path(folder))
        time.sleep(float(os.environ.get("FAKE_SLEEP", 0)))
        if set(os.environ.get("FAKE_FAIL", "").split()) & set(words):
            print("first line\nRuntimeError: the fake trainer was told to fail")
            return 3
        if not os.environ.get("FAKE_NO_RESULT"):
            folder.write_result(result(values, words, choices, seed))
    return 0


def result(values: dict, words: list[str], choices: dict, seed: int) -> Result:
    distance = math.log10(float(values.get("optim.lr", 1e-3))) + 3  # the best rate is 1e-3
    loss = 1.5 + 0.01 * seed + (0.1 if choices["rope"] == "yarn" else 0) + distance**2
    lengths = [
        {"multiple": m, "length": 256 * m, "loss": loss * m, "ppl": math.exp(loss * m), "bpb": loss, "tokens": 10}
        for m in (1, 2)
    ]
    return Result(
        job="train",
        seed=seed,
        choices=choices,
        overrides=words,
        steps=10,
        tokens=1000,
        seconds=0.1,
        tokens_per_second=1e4,
        parameters=1000,
        context=256,
        data={"name": "fake", "fingerprint": "f"},
        metrics={"val/loss": loss, "val/ppl": math.exp(loss), "val/bpb": loss / math.log(2)},
        lengths=lengths,
    )


def checkpoint(folder: Path) -> None:
    state = b"state"
    (folder / "checkpoints").mkdir(exist_ok=True)
    path = folder / "checkpoints" / "step-00000005.ckpt"
    path.write_bytes(state)
    write_manifest(path, Manifest(sha256=hashlib.sha256(state).hexdigest(), bytes=len(state), step=5))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
