"""Time from the shell to the answer of every command that needs no torch, beside bare Python and `import torch`."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time

from common import spread, table, write

APTLAB = [sys.executable, "-m", "aptlab"]
ARMS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "python -c 'import torch'": [sys.executable, "-c", "import torch"],
    "python -c 'import lightning'": [sys.executable, "-c", "import lightning"],
    "aptlab --help": [*APTLAB, "--help"],
    "aptlab --version": [*APTLAB, "--version"],
    "aptlab train --help": [*APTLAB, "train", "--help"],
    "aptlab train --cfg": [*APTLAB, "train", "--cfg"],
    "aptlab train rope=yran (error)": [*APTLAB, "train", "rope=yran"],
    "aptlab train rope.factor=-1 rope=yarn (error)": [*APTLAB, "train", "rope=yarn", "rope.factor=-1"],
    "aptlab ls": [*APTLAB, "ls"],
    "aptlab ls rope": [*APTLAB, "ls", "rope"],
    "aptlab show rope=yarn": [*APTLAB, "show", "rope=yarn"],
    "aptlab check rope=yarn": [*APTLAB, "check", "rope=yarn"],
    "aptlab completion bash": [*APTLAB, "completion", "bash"],
    "aptlab __complete train rope=ya": [*APTLAB, "__complete", "train", "rope=ya"],
}
ROUNDS = 7


def seconds(command: list[str], folder: str) -> float:
    started = time.perf_counter()
    subprocess.run(command, cwd=folder, capture_output=True, stdin=subprocess.DEVNULL, timeout=120, check=False)
    return time.perf_counter() - started


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        times: dict[str, list[float]] = {name: [] for name in ARMS}
        for round_ in range(ROUNDS + 1):
            for name, command in ARMS.items():
                taken = seconds(command, folder)
                if round_:  # the first round warms the file cache
                    times[name].append(taken)
    rows = [(f"`{name}`", spread(values)) for name, values in times.items()]
    body = f"Wall seconds, median (min to max) of {ROUNDS} rounds.\n\n" + table(["command", "seconds"], rows)
    write("startup", "Start-up", body, "aptlab", "hydra-core", "omegaconf", "torch", "lightning")


if __name__ == "__main__":
    main()
