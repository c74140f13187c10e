"""Time from the shell to the answer of every command that needs no torch, beside bare Python and `import torch`."""

from __future__ import annotations

import os
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
    # Byte code is kept, as an installation has it, whatever this shell says; the first round writes it.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = f"{folder}/bytecode"
    subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, stdin=subprocess.DEVNULL, timeout=120, check=False
    )
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
